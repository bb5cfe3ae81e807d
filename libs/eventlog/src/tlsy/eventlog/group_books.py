"""What a consumer group remembers in the control database, so that it need not trust the broker's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tlsy.eventlog.statements import statements
from tlsy.tenancy.context import PLATFORM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from tlsy.eventlog.ports import TopicPartition
    from tlsy.tenancy.context import Platform
    from tlsy.tenancy.unit_of_work import UnitOfWork


class ControlTransactions(Protocol):
    """Transactions in the control database; `Tenancy` is one."""

    def control(self, scope: Platform, *, write: bool) -> AbstractAsyncContextManager[UnitOfWork]:
        """One transaction; raises PlacementUnavailable."""
        ...


class GroupBooks:
    """Assignments and watermarks of one group. Every method raises PlacementUnavailable."""

    __slots__ = ("_group", "_sql", "_transactions")

    def __init__(self, package: str, group: str, transactions: ControlTransactions) -> None:
        self._group = group
        self._sql = statements(package)
        self._transactions = transactions

    async def register(self, topics: Sequence[str]) -> None:
        """Say that this group needs these topics' records, now and until it is not seen for long."""
        async with self._transactions.control(PLATFORM, write=True) as tx:
            await tx.execute(self._sql["register_group"], list(topics), self._group)

    async def take(self, partition: TopicPartition) -> int:
        """The epoch of a new assignment: higher than any before, of whatever partition and broker."""
        async with self._transactions.control(PLATFORM, write=True) as tx:
            return int(
                await tx.fetchval(
                    self._sql["take_assignment"], partition.topic, self._group, partition.partition
                )
            )

    async def partitions(self, topic: str) -> list[int]:
        """Those that the group began with or took later."""
        async with self._transactions.control(PLATFORM, write=False) as tx:
            return await self._partitions(tx, topic)

    async def begin_with(self, topic: str, starts: Mapping[int, int]) -> list[int]:
        """Begin with these, unless the group has begun; answers what `partitions` would.

        What is below the starts the group does not need.
        """
        async with self._transactions.control(PLATFORM, write=True) as tx:
            await tx.execute(
                self._sql["begin_with"], topic, self._group, list(starts.keys()), list(starts.values())
            )
            return await self._partitions(tx, topic)

    async def _partitions(self, tx: UnitOfWork, topic: str) -> list[int]:
        rows = await tx.fetch(self._sql["select_partitions"], topic, self._group)
        return [row["partition"] for row in rows]

    async def applied(self, partition: TopicPartition, log: int | None = None) -> int | None:
        """Below it everything is applied in incarnation `log`, or the present one; None: not begun there."""
        async with self._transactions.control(PLATFORM, write=False) as tx:
            value = await tx.fetchval(
                self._sql["select_watermark"], partition.topic, self._group, partition.partition, log
            )
            return None if value is None else int(value)

    async def raise_watermarks(self, partition: TopicPartition, next_offsets: Mapping[int, int]) -> None:
        """Everything below these offsets is applied: incarnation to next offset."""
        async with self._transactions.control(PLATFORM, write=True) as tx:
            for log, next_offset in next_offsets.items():
                await tx.execute(
                    self._sql["store_watermark"],
                    partition.topic,
                    self._group,
                    partition.partition,
                    log,
                    next_offset,
                )

    async def topic_log(self, topic: str) -> tuple[int, str]:
        """The present incarnation, 0 if there is none yet, and the cluster that holds it."""
        async with self._transactions.control(PLATFORM, write=False) as tx:
            row = await tx.fetchrow(self._sql["select_topic_log"], topic)
            return (row["incarnation"], row["cluster_id"]) if row else (0, "")

    async def end_log(self, topic: str, log: int | None) -> None:
        """Records of this incarnation, or the present one, are missing: have them published in another."""
        async with self._transactions.control(PLATFORM, write=True) as tx:
            await tx.execute(self._sql["end_log"], topic, log)
