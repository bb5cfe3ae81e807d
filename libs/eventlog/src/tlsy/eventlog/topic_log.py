"""Which incarnation of a topic the broker holds: the memory that a broker which lost records does not have.

An incarnation is one physical log: it ends when the cluster's id changes, or an end offset lies before what
was acknowledged. It is numbered in the control database, so that all relays of a service mean the same.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from tlsy.eventlog.errors import LogChanged, LogUnavailable
from tlsy.tenancy.errors import PlacementUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlsy.eventlog.outboxes import Outboxes
    from tlsy.eventlog.ports import LogInspector, Position
    from tlsy.runtime.clock import Clock

_RECHECK_S: Final = 5.0
_AWAY_S: Final = 0.25


class TopicLog:
    """One topic's incarnation, as far as this process knows.

    `current` compares the broker with the books every 5 s and after every doubt; `verify` asks for the
    cluster's id only. A log that was cut and grew past what it had been within 5 s, under the same cluster
    id, goes unnoticed.
    """

    __slots__ = (
        "_away_until",
        "_clock",
        "_cluster_id",
        "_incarnation",
        "_inspector",
        "_lock",
        "_outboxes",
        "_partitions",
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

    async def verify(self, log: int) -> None:
        """Raise LogChanged unless the broker still is that of incarnation `log`.

        Asked after an acknowledgement it proves that the records are in that incarnation.
        """
        if log != self._incarnation or await self._inspector.cluster_id() != self._cluster_id:
            self.doubt()
            raise LogChanged(f"{self._topic} is no longer in incarnation {log}")

    def doubt(self) -> None:
        """Compare at the next occasion."""
        self._recheck_at = 0.0

    async def acknowledged(self, log: int, positions: Sequence[Position]) -> None:
        """Remember how far the log reached. Raises PlacementUnavailable."""
        ends: dict[int, int] = {}
        for position in positions:
            ends[position.partition] = max(position.offset, ends.get(position.partition, 0))
        await self._outboxes.store_topic_ends(self._topic, log, ends)

    async def _compare(self) -> None:
        cluster_id = await self._inspector.cluster_id()
        await self._inspector.ensure_topics({self._topic: self._partitions})
        try:
            await self._look_up(cluster_id)
        except PlacementUnavailable:
            # Without its books a relay goes on as long as the broker is the one that it knew.
            if not self._incarnation or cluster_id != self._cluster_id:
                raise

    async def _look_up(self, cluster_id: str) -> None:
        known = await self._outboxes.topic_log(self._topic)
        if known is None:
            await self._outboxes.open_topic_log(self._topic, cluster_id)
        elif known[1] != cluster_id or await self._went_back(known[0]):
            await self._outboxes.next_topic_log(self._topic, known[0], cluster_id)
        known = await self._outboxes.topic_log(self._topic)
        if known is None or known[1] != cluster_id:
            raise LogUnavailable("two brokers are seen at the same time")
        self._incarnation, self._cluster_id = known

    async def _went_back(self, log: int) -> bool:
        # What was acknowledged is read first: read last, it could be ahead of the ends for a good reason.
        acknowledged = await self._outboxes.topic_ends(self._topic, log)
        ends = await self._inspector.end_offsets(self._topic)
        return any(ends.get(partition, 0) <= offset for partition, offset in acknowledged.items())
