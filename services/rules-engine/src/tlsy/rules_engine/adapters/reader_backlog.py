"""How far the group's member has applied the log."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tlsy.eventlog.ports import TopicPartition
from tlsy.rules_engine.adapters.postgres.times import to_us

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from uuid import UUID

    from tlsy.eventlog.parking import Parking
    from tlsy.eventlog.ports import GroupReader, Received


@dataclass(slots=True)
class _Place:
    """One partition: what is being worked on, and the newest time among what was before that."""

    done_us: int = 0
    newest_us: int = 0
    keys: frozenset[bytes | None] = field(default_factory=frozenset)
    at_end: bool = False


class FollowedReader:
    """A member of the group whose worker applies all that it fetched before it fetches again."""

    def __init__(self, reader: GroupReader) -> None:
        self._reader = reader
        self._places: dict[TopicPartition, _Place] = {}

    async def start(
        self,
        on_assigned: Callable[[Sequence[TopicPartition]], Awaitable[None]],
        on_revoked: Callable[[Sequence[TopicPartition]], Awaitable[None]],
    ) -> None:
        """See `GroupReader`."""

        async def revoked(partitions: Sequence[TopicPartition]) -> None:
            await on_revoked(partitions)
            for partition in partitions:
                self._places.pop(partition, None)

        await self._reader.start(on_assigned, revoked)

    async def fetch(self, partition: TopicPartition, *, max_records: int, timeout_s: float) -> list[Received]:
        """See `GroupReader`."""
        place = self._places.setdefault(partition, _Place())
        place.done_us = max(place.done_us, place.newest_us)
        place.keys = frozenset()
        records = await self._reader.fetch(partition, max_records=max_records, timeout_s=timeout_s)
        place.keys = frozenset(record.key for record in records)
        place.newest_us = max((to_us(record.time) for record in records), default=0)
        place.at_end = not records
        return records

    async def ends(self, topic: str) -> Mapping[int, int]:
        """See `GroupReader`."""
        return await self._reader.ends(topic)

    async def starts(self, topic: str) -> Mapping[int, int]:
        """See `GroupReader`."""
        return await self._reader.starts(topic)

    async def oldest(self, partition: TopicPartition) -> int:
        """See `GroupReader`."""
        return await self._reader.oldest(partition)

    async def rewind(self, partition: TopicPartition) -> None:
        """See `GroupReader`; what was applied before stays applied, what was fetched last was not."""
        await self._reader.rewind(partition)
        place = self._places.get(partition, _Place())
        place.newest_us, place.keys, place.at_end = 0, frozenset(), False

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """See `GroupReader`."""
        await self._reader.commit(offsets)

    async def committed(self, partition: TopicPartition) -> int | None:
        """See `GroupReader`."""
        return await self._reader.committed(partition)

    async def lag(self) -> Mapping[TopicPartition, int]:
        """See `GroupReader`."""
        return await self._reader.lag()

    async def stop(self) -> None:
        """See `GroupReader`."""
        await self._reader.stop()

    def applied_until_us(self, partition: TopicPartition, key: bytes) -> int | None:
        """See `tlsy.rules_engine.ports.Backlog`."""
        place = self._places.get(partition)
        if place is None:
            return 0
        if place.keys and key not in place.keys:
            return max(place.done_us, place.newest_us)
        return None if place.at_end else place.done_us


class ReaderBacklog:
    """See `tlsy.rules_engine.ports.Backlog`."""

    def __init__(self, topic: str, make: Callable[[], GroupReader], parking: Parking) -> None:
        self._topic = topic
        self._make = make
        self._parking = parking
        self._reader: FollowedReader | None = None

    def reader(self) -> GroupReader:
        """A new member of the group, and the one that is asked from now on."""
        self._reader = FollowedReader(self._make())
        return self._reader

    def applied_until_us(self, partition: int, key: bytes) -> int | None:
        """See the port."""
        if self._reader is None:
            return 0
        return self._reader.applied_until_us(TopicPartition(topic=self._topic, partition=partition), key)

    async def parked(self, partition: int) -> Collection[UUID]:
        """See the port."""
        return await self._parking.tenants(TopicPartition(topic=self._topic, partition=partition))
