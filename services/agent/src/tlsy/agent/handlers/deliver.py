"""Sends what is on disk, oldest first, and forgets it only when the server has it."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from tlsy.agent.domain.schedule import wait_s
from tlsy.agent.ports import DeliveryError
from tlsy.contracts.ingestion.v1 import ingestion_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tlsy.agent.ports import Buffer, Delivered, Server
    from tlsy.runtime.clock import Clock

T = TypeVar("T")
_log = structlog.get_logger(__name__)

#: The server's reason for an event of a time that has not come yet.
_CLOCK_AHEAD: Final = "TIME_IN_FUTURE"
MAX_BATCH_EVENTS: Final = 500
MAX_BATCH_BYTES: Final = 1024 * 1024


class Deliverer:
    """Delivers until it is asked to stop.

    The order on disk is the order of delivery, and one batch is under way at a time. Deferred events of a
    batch are sent again before anything behind them; events that the server refuses for good are logged with
    their reason and left behind, since sending them again could never help. A disk that fails is tried again
    like a server that does. Asked to stop, it delivers what is on disk as long as the server takes it without
    a pause, and leaves the rest there.
    """

    def __init__(
        self,
        buffer: Buffer,
        server: Server,
        clock: Clock,
        jitter: Callable[[], float],
        collected: asyncio.Event,
    ) -> None:
        self._buffer = buffer
        self._server = server
        self._clock = clock
        self._jitter = jitter
        self._collected = collected
        self.delivered = 0
        self.rejected = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Delivers whenever something is on disk."""
        while True:
            self._collected.clear()
            if await self.deliver_batch(stopping):
                continue
            if stopping.is_set():
                return
            await _first_of(self._collected.wait(), stopping.wait())

    async def deliver_batch(self, stopping: asyncio.Event) -> bool:
        """Delivers one batch, however long it takes; False if there was none, or it was left for later."""
        peeked = await self._on_disk(partial(self._buffer.peek, MAX_BATCH_EVENTS, MAX_BATCH_BYTES), stopping)
        if peeked is None or not peeked[0][0]:
            return False
        records, behind = peeked[0]
        events = [ingestion_pb2.Event.FromString(record) for record in records]
        failures = 0
        while events:
            try:
                delivered = await self._server.deliver(events)
            except DeliveryError as error:
                failures += 1
                pause_s = wait_s(failures, error.retry_after_s, self._jitter())
                _log.warning("not delivered, trying again", error=str(error), pause_s=round(pause_s, 1))
            else:
                failures = failures + 1 if delivered.deferred else 0
                self._count(delivered, len(events))
                events = [events[index] for index in delivered.deferred]
                pause_s = wait_s(failures, delivered.retry_after_s, self._jitter()) if events else 0.0
            if events and not await self._paused(pause_s, stopping):
                return False
        return await self._on_disk(partial(self._buffer.acknowledge, behind), stopping) is not None

    async def _on_disk(self, call: Callable[[], T], stopping: asyncio.Event) -> tuple[T] | None:
        """What the buffer answers, tried until the disk does it; None if it is time to stop."""
        failures = 0
        while True:
            try:
                return (await asyncio.to_thread(call),)
            except OSError as error:
                failures += 1
                pause_s = wait_s(failures, None, self._jitter())
                _log.error("the buffer fails, trying again", error=str(error), pause_s=round(pause_s, 1))
            if not await self._paused(pause_s, stopping):
                return None

    async def _paused(self, pause_s: float, stopping: asyncio.Event) -> bool:
        """Waits; False if it is time to stop."""
        await _first_of(self._clock.sleep(pause_s), stopping.wait())
        return not stopping.is_set()

    def _count(self, delivered: Delivered, sent: int) -> None:
        self.rejected += len({index for index, _, _ in delivered.rejected})
        self.delivered += sent - len(delivered.deferred) - len({index for index, _, _ in delivered.rejected})
        ahead = sum(reason == _CLOCK_AHEAD for _, reason, _ in delivered.rejected)
        if ahead:
            _log.critical(
                "events are lost: this host's clock is ahead of the server's; set it, e.g. by chronyd",
                refused=ahead,
                host_time=self._clock.now().isoformat(timespec="seconds"),
            )
        # One line per reason: a batch that came too late would be hundreds of one kind.
        for reason, count in Counter(reason for _, reason, _ in delivered.rejected).items():
            first = next(message for _, of, message in delivered.rejected if of == reason)
            _log.error("the server refuses events for good", reason=reason, refused=count, problem=first)


async def _first_of(*waits: Coroutine[object, object, object]) -> None:
    """Returns when one of them does; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
