"""Which incarnation of a topic the broker holds: the memory that a broker which lost records does not have.

An incarnation is one physical log: it ends when the cluster's id changes, an end offset lies before what
was acknowledged, or a record is written where one was acknowledged before. It is numbered in the control
database, so that all relays of a service mean the same.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from tlsy.eventlog.errors import LogChanged, LogUnavailable
from tlsy.tenancy.errors import PlacementUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tlsy.eventlog.outboxes import Outboxes
    from tlsy.eventlog.ports import LogInspector, Position
    from tlsy.runtime.clock import Clock

_RECHECK_S: Final = 5.0
_AWAY_S: Final = 0.25


class TopicLog:
    """One topic's incarnation, as far as this process knows.

    `current` compares the broker with the books every 5 s and after every doubt; `verify` asks for the
    cluster's id only, and looks where the records went. A log that is cut and grows past its former end
    between two comparisons is noticed by the first to write to it that knows of a record which was there:
    its own, or another process's that was in the books at the last comparison.
    """

    __slots__ = (
        "_away_until",
        "_clock",
        "_cluster_id",
        "_cut",
        "_incarnation",
        "_inspector",
        "_lock",
        "_outboxes",
        "_partitions",
        "_reached",
        "_recheck_at",
        "_topic",
    )

    def __init__(
        self, topic: str, partitions: int, *, outboxes: Outboxes, inspector: LogInspector, clock: Clock
    ) -> None:
        self._topic = topic
        self._partitions = partitions
        self._outboxes = outboxes
        self._inspector = inspector
        self._clock = clock
        self._lock = asyncio.Lock()
        self._incarnation = 0
        self._cluster_id = ""
        # The highest offsets known to be acknowledged in this incarnation, and one of which some were cut.
        self._reached: dict[int, int] = {}
        self._cut = 0
        self._recheck_at = 0.0
        self._away_until = 0.0

    async def current(self) -> int:
        """The incarnation to publish to; the topic exists.

        Raises LogUnavailable (at once for a quarter of a second after it was away) and PlacementUnavailable
        while the control database is needed but away.
        """
        async with self._lock:
            now = self._clock.monotonic()
            if now < self._away_until:
                raise LogUnavailable("it was away a moment ago")
            if not self._incarnation or now >= self._recheck_at:
                try:
                    await self._compare()
                except LogUnavailable:
                    self._away_until = self._clock.monotonic() + _AWAY_S
                    raise
                self._recheck_at = self._clock.monotonic() + _RECHECK_S
            return self._incarnation

    def reached(self) -> Mapping[int, int]:
        """Partition to the highest offset acknowledged so far: what is written from now on is behind it."""
        return dict(self._reached)

    async def verify(self, log: int, positions: Sequence[Position], reached: Mapping[int, int]) -> None:
        """Raise LogChanged unless the broker still is that of incarnation `log`, and its log was not cut.

        Asked after an acknowledgement it proves that the records are in that incarnation.

        Args:
            log: what they were written to.
            positions: where they are.
            reached: what `reached` answered before they were written.
        """
        if log != self._incarnation or await self._inspector.cluster_id() != self._cluster_id:
            self.doubt()
            raise LogChanged(f"{self._topic} is no longer in incarnation {log}")
        for position in positions:
            if position.offset <= reached.get(position.partition, -1):
                self._cut = log
                self.doubt()
                raise LogChanged(f"{self._topic} was cut: {position} was acknowledged before")
        if log == self._incarnation:
            self._reach(_ends(positions))

    def doubt(self) -> None:
        """Compare at the next occasion."""
        self._recheck_at = 0.0

    async def acknowledged(self, log: int, positions: Sequence[Position]) -> None:
        """Remember how far the log reached. Raises PlacementUnavailable."""
        await self._outboxes.store_topic_ends(self._topic, log, _ends(positions))

    async def _compare(self) -> None:
        cluster_id = await self._inspector.cluster_id()
        await self._inspector.ensure_topics({self._topic: self._partitions})
        try:
            await self._look_up(cluster_id)
        except PlacementUnavailable:
            # Without its books a relay goes on as long as the broker is the one that it knew.
            if not self._incarnation or cluster_id != self._cluster_id or self._cut == self._incarnation:
                raise

    async def _look_up(self, cluster_id: str) -> None:
        before = await self._outboxes.topic_log(self._topic)
        acknowledged: Mapping[int, int] = {}
        if before is None:
            await self._outboxes.open_topic_log(self._topic, cluster_id)
        else:
            # Read before the ends: read last, it could be ahead of them for a good reason.
            acknowledged = await self._outboxes.topic_ends(self._topic, before[0])
            if before[1] != cluster_id or before[0] == self._cut or await self._lacks(acknowledged):
                await self._outboxes.next_topic_log(self._topic, before[0], cluster_id)
        known = await self._outboxes.topic_log(self._topic)
        if known is None or known[1] != cluster_id:
            raise LogUnavailable("two brokers are seen at the same time")
        if known[0] != self._incarnation:
            self._reached = {}
        if known == before:
            self._reach(acknowledged)
        self._incarnation, self._cluster_id = known

    async def _lacks(self, acknowledged: Mapping[int, int]) -> bool:
        ends = await self._inspector.end_offsets(self._topic)
        return any(ends.get(partition, 0) <= offset for partition, offset in acknowledged.items())

    def _reach(self, ends: Mapping[int, int]) -> None:
        for partition, offset in ends.items():
            self._reached[partition] = max(offset, self._reached.get(partition, -1))


def _ends(positions: Sequence[Position]) -> dict[int, int]:
    ends: dict[int, int] = {}
    for position in positions:
        ends[position.partition] = max(position.offset, ends.get(position.partition, -1))
    return ends
