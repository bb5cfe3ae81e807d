"""Records of tenants whose database cannot be written to now, kept in order in the control database."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from tlsy.eventlog.errors import ParkingFull
from tlsy.eventlog.ports import Received
from tlsy.eventlog.statements import statements
from tlsy.tenancy.context import PLATFORM

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from tlsy.eventlog.group_books import ControlTransactions
    from tlsy.eventlog.ports import Headers, TopicPartition

_LENGTHS: Final = struct.Struct(">HI")


class Parking:
    """One group's parked records. Every method raises PlacementUnavailable.

    Args:
        package: the service's package name.
        group: the consumer group.
        transactions: in the control database.
        max_rows: of the group, over all tenants.
        max_bytes: of their values.
    """

    __slots__ = ("_group", "_max_bytes", "_max_rows", "_sql", "_transactions")

    def __init__(
        self, package: str, group: str, transactions: ControlTransactions, *, max_rows: int, max_bytes: int
    ) -> None:
        self._sql = statements(package)
        self._group = group
        self._transactions = transactions
        self._max_rows = max_rows
        self._max_bytes = max_bytes

    async def park(self, tenant_id: UUID, records: Sequence[Received]) -> None:
        """Append the records to those of the tenant, all or none. Raises ParkingFull.

        The limits may be passed by as much as other processes park at the same moment.
        """
        async with self._transactions.control(PLATFORM, write=True) as tx:
            tag = await tx.execute(
                self._sql["park"],
                tenant_id,
                self._group,
                [record.topic for record in records],
                [record.partition for record in records],
                [record.offset for record in records],
                [record.time for record in records],
                [record.key for record in records],
                [_pack(record.headers) for record in records],
                self._max_rows,
                self._max_bytes,
                [record.value for record in records],
                sum(len(record.value) for record in records),
            )
        if records and tag.split()[-1] == "0":
            raise ParkingFull(
                f"group {self._group} has {self._max_rows} rows or {self._max_bytes} bytes parked"
            )

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

    async def count(self) -> int:
        """Parked records of the group."""
        async with self._transactions.control(PLATFORM, write=False) as tx:
            return int(await tx.fetchval(self._sql["count_parked"], self._group))


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
