"""One database as its relay sees it: when to look, what waits, and what may be published from memory."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from uuid import UUID

    from tlsy.contracts.cloudevents import CloudEvent
    from tlsy.eventlog.outboxes import Outbox
    from tlsy.eventlog.ports import OutboxDatabase

_BACKLOG_S: Final = 5.0
_HOT_BATCH_EVENTS: Final = 200


class Lane:
    """A queue of committed events between two states.

    While `swept`, all older rows of the database are published and the queue may be. Otherwise it is held
    back, and the sweep publishes everything; what it published leaves the queue (`published`). A sweep that
    saw everything (`caught_up`) finds the queue holding only what was committed after it looked.
    """

    __slots__ = (
        "_backlog_at",
        "_bytes",
        "_held",
        "_limit_bytes",
        "_queue",
        "age_s",
        "database",
        "failures",
        "items",
        "owes",
        "publishing",
        "reconciled_log",
        "suspect",
        "swept",
        "wake",
    )

    def __init__(self, database: OutboxDatabase, limit_bytes: int) -> None:
        self.database = database
        self.wake = asyncio.Event()
        self.failures = 0
        # Whether the last failure was the database's: then it may hold whoever asks it for long.
        self.suspect = False
        # Woken, and not led since.
        self.owes = False
        self.reconciled_log = 0
        self.swept = False
        self.publishing: asyncio.Task[None] | None = None
        self.items = 0
        self.age_s = 0.0
        self._queue: deque[CloudEvent] = deque()
        self._bytes = 0
        self._limit_bytes = limit_bytes
        self._held = False
        self._backlog_at = 0.0

    def offer(self, events: Iterable[CloudEvent]) -> None:
        """Queue events; one that does not fit is left to the sweep, and so is what follows."""
        for event in events:
            if self._bytes + len(event.data) > self._limit_bytes:
                self.hold()
            else:
                self._queue.append(event)
                self._bytes += len(event.data)

    def take(self, max_bytes: int) -> list[CloudEvent]:
        """The next batch of the queue; empty unless `swept`."""
        taken: list[CloudEvent] = []
        size = 0
        while self.swept and self._queue and len(taken) < _HOT_BATCH_EVENTS:
            size += len(self._queue[0].data)
            if taken and size > max_bytes:
                break
            event = self._queue.popleft()
            self._bytes -= len(event.data)
            taken.append(event)
        return taken

    def hold(self) -> None:
        """Something did not get out from memory: its row is for the next sweep."""
        self.swept = False
        self._held = True
        self.wake.set()

    def look(self) -> None:
        """Before a sweep reads: what is held from now on, it may not see."""
        self._held = False

    def published(self, ids: set[UUID]) -> None:
        """The sweep published these."""
        if self._queue:
            self._queue = deque(event for event in self._queue if event.id not in ids)
            self._bytes = sum(len(event.data) for event in self._queue)

    def caught_up(self) -> None:
        """The sweep saw all rows there were when it looked, and all of them are published."""
        self.swept = not self._held

    async def measure(self, outbox: Outbox, now: datetime, monotonic: float) -> None:
        """Count what waits, not more often than every five seconds."""
        if monotonic < self._backlog_at:
            return
        self._backlog_at = monotonic + _BACKLOG_S
        backlog = await outbox.backlog()
        self.items = backlog.items
        self.age_s = max(0.0, (now - backlog.oldest).total_seconds()) if backlog.oldest else 0.0
