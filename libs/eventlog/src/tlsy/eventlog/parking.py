"""Records of tenants whose database cannot be written to now, kept in order in the control database."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tlsy.eventlog.errors import Fenced, ParkingFull
from tlsy.eventlog.ports import Received
from tlsy.eventlog.statements import statements
from tlsy.tenancy.context import PLATFORM

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from tlsy.eventlog.group_books import ControlTransactions
    from tlsy.eventlog.ports import Headers, TopicPartition

_LENGTHS: Final = struct.Struct(">HI")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkingLimits:
    """How much may be parked. Bytes are those of keys, headers and values.

    Attributes:
        rows: records of the group; a parking that is full of paused tenants stops partitions.
        bytes: theirs.
        tenant_rows: of one tenant over its rate; what it sends beyond that is refused.
        tenant_bytes: theirs.
    """

    rows: int = 50_000
    bytes: int = 268_435_456
    tenant_rows: int = 5_000
    tenant_bytes: int = 33_554_432

    def of(self, *, over_rate: bool) -> tuple[int, int, int, int]:
        """Rows and bytes of the group, then of the tenant."""
        if over_rate:
            return self.rows // 2, self.bytes // 2, self.tenant_rows, self.tenant_bytes
        return self.rows, self.bytes, self.rows, self.bytes


class Parking:
    """One group's parked records. Every method raises PlacementUnavailable.

    Args:
        package: the service's package name.
        group: the consumer group.
        transactions: in the control database.
        limits: of the group, over all tenants, and of a tenant that is over its rate; for those that park.
    """

    __slots__ = ("_group", "_limits", "_sql", "_transactions")

    def __init__(
        self,
        package: str,
        group: str,
        transactions: ControlTransactions,
        *,
        limits: ParkingLimits | None = None,
    ) -> None:
        self._sql = statements(package)
        self._group = group
        self._transactions = transactions
        self._limits = limits or ParkingLimits()

    async def park(
        self,
        tenant_id: UUID,
        partition: TopicPartition,
        records: Sequence[Received],
        *,
        epoch: int,
        over_rate: bool = False,
    ) -> None:
        """Append the records to those of the tenant, all or none; one that is there is not added again.

        Raises ParkingFull; the limits may be passed by as much as other processes park at the same moment.
        Raises Fenced if `epoch` is not of the partition's last assignment: the next owner, which has looked
        for what is parked, would not know. `over_rate`: the tenant sends more than it may. Half of the
        parking, at most, is for such; the rest is for those that are paused through no doing of theirs.
        """
        rows, size, own_rows, own_size = self._limits.of(over_rate=over_rate)
        async with self._transactions.control(PLATFORM, write=True) as tx:
            assignment = (partition.topic, self._group, partition.partition, epoch)
            if await tx.fetchval(self._sql["hold_assignment"], *assignment) is None:
                raise Fenced(self._group, epoch)
            fits = await tx.fetchval(
                self._sql["park"],
                tenant_id,
                self._group,
                [record.topic for record in records],
                [record.partition for record in records],
                [record.offset for record in records],
                [record.time for record in records],
                [record.key for record in records],
                [_pack(record.headers) for record in records],
                [record.value for record in records],
                rows,
                size,
                own_rows,
                own_size,
            )
        if not fits:
            raise ParkingFull(f"group {self._group} has as many records or bytes parked as it may")

    async def tenants(self, partition: TopicPartition) -> list[UUID]:
        """Whose records of this partition are parked."""
        async with self._transactions.control(PLATFORM, write=False) as tx:
            rows = await tx.fetch(
                self._sql["select_parked_tenants"], self._group, partition.topic, partition.partition
            )
            return [row["tenant_id"] for row in rows]

    async def first(
        self, tenant_id: UUID, partition: TopicPartition, limit: int
    ) -> list[tuple[int, Received]]:
        """The tenant's oldest parked records of this partition, with the numbers to release them by."""
        async with self._transactions.control(PLATFORM, write=False) as tx:
            rows = await tx.fetch(
                self._sql["select_parked"],
                tenant_id,
                self._group,
                partition.topic,
                partition.partition,
                limit,
            )
        return [
            (
                row["seq"],
                Received(
                    topic=row["topic"],
                    partition=row["partition"],
                    offset=row["record_offset"],
                    time=row["record_time"],
                    key=row["key"],
                    value=row["value"],
                    headers=_unpack(row["headers"]),
                ),
            )
            for row in rows
        ]

    async def release(self, tenant_id: UUID, numbers: Sequence[int]) -> None:
        """Forget records that are applied or dead-lettered."""
        async with self._transactions.control(PLATFORM, write=True) as tx:
            await tx.execute(self._sql["delete_parked"], tenant_id, self._group, list(numbers))

    async def purge(self, tenant_id: UUID, partition: TopicPartition) -> int:
        """Forget what is parked for a tenant that is gone; answers how many records that were."""
        async with self._transactions.control(PLATFORM, write=True) as tx:
            tag = await tx.execute(
                self._sql["purge_parked"], tenant_id, self._group, partition.topic, partition.partition
            )
            return int(tag.split()[-1])

    async def backlog(self) -> tuple[int, datetime | None]:
        """Parked records of the group, and since when the oldest is parked."""
        async with self._transactions.control(PLATFORM, write=False) as tx:
            row = await tx.fetchrow(self._sql["select_parked_backlog"], self._group)
            return (row["items"], row["oldest"]) if row else (0, None)


def _pack(headers: Headers) -> bytes:
    parts: list[bytes] = []
    for name, value in headers:
        encoded = name.encode()
        parts += [_LENGTHS.pack(len(encoded), len(value)), encoded, value]
    return b"".join(parts)


def _unpack(packed: bytes) -> Headers:
    headers: list[tuple[str, bytes]] = []
    at = 0
    while at < len(packed):
        name_bytes, value_bytes = _LENGTHS.unpack_from(packed, at)
        at += _LENGTHS.size
        headers.append(
            (packed[at : at + name_bytes].decode(), packed[at + name_bytes : at + name_bytes + value_bytes])
        )
        at += name_bytes + value_bytes
    return tuple(headers)
