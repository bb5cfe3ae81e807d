"""A partition that a topic got later waits until its group is done with what the others held by then.

Where a key's records go depends on how many partitions there are. When there are more, the new records of a
tenant go to a new partition while older ones wait in another: their order would be lost, and the owners of
both would fence each other off. Where the number is multiplied, no key goes to a partition that was there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.contracts.events import TOPICS
from tlsy.eventlog.ports import TopicPartition
from tlsy.runtime.logging import get_logger

if TYPE_CHECKING:
    from tlsy.eventlog.group_books import GroupBooks
    from tlsy.eventlog.parking import Parking
    from tlsy.eventlog.ports import GroupReader
    from tlsy.runtime.clock import Clock


class Growth:
    """Tells a partition when its turn is. In topics that others than relays write to it is at once."""

    __slots__ = ("_books", "_clock", "_known_s", "_logger", "_parking")

    def __init__(
        self, group: str, *, books: GroupBooks, parking: Parking, clock: Clock, known_s: float
    ) -> None:
        """Wire it.

        Args:
            group: named in the log.
            books: of the group.
            parking: of the group.
            clock: for waits.
            known_s: after that all who write to a topic know how many partitions it has; a tenth of it is
                between looks at how far the group is.
        """
        self._books = books
        self._parking = parking
        self._clock = clock
        self._known_s = known_s
        self._logger = get_logger("consumer").bind(group=group)

    async def wait_for_turn(self, partition: TopicPartition, reader: GroupReader) -> None:
        """Return once the group may take the partition for the first time; at once if it did before.

        Raises LogUnavailable and PlacementUnavailable; waits anew when it is called again.
        """
        topic = partition.topic
        if topic not in TOPICS.values():
            return
        known = await self._books.partitions(topic)
        if not known:
            known = await self._books.begin_with(topic, await self._starts(partition, reader))
        if partition.partition in known:
            return
        self._logger.warning("partition is new and waits", topic=topic, partition=partition.partition)
        await self._clock.sleep(self._known_s)
        ends = await reader.ends(topic)
        # Of those that the group knows a topic that was made anew may have fewer.
        for number in ends.keys() & known:
            older = TopicPartition(topic=topic, partition=number)
            while not await self._is_done(older, ends[number], reader):
                await self._clock.sleep(self._known_s / 10)

    async def _starts(self, asked: TopicPartition, reader: GroupReader) -> dict[int, int]:
        """Where the group begins in each partition; 0 where the broker says that it had begun before."""
        starts = dict.fromkeys(range(asked.partition + 1), 0) | dict(await reader.starts(asked.topic))
        for number in [number for number, start in starts.items() if start]:
            partition = TopicPartition(topic=asked.topic, partition=number)
            if await reader.committed(partition) is not None:
                starts[number] = 0
        return starts

    async def _is_done(self, older: TopicPartition, end: int, reader: GroupReader) -> bool:
        # A log that was cut meanwhile may never again be as long.
        end = min(end, (await reader.ends(older.topic)).get(older.partition, 0))
        reached = max(await reader.committed(older) or 0, await reader.oldest(older))
        # Looked at last: what is parked is so before the offset behind it is committed.
        return reached >= end and not await self._parking.tenants(older)
