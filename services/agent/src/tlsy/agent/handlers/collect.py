"""Reads everything once per interval and puts it on disk as events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from tlsy.agent.domain.readings import to_event
from tlsy.agent.ports import BufferFullError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsy.agent.domain.readings import Origin
    from tlsy.agent.ports import Buffer, Readings
    from tlsy.runtime.clock import Clock

_log = structlog.get_logger(__name__)


class Collector:
    """Collects until it is asked to stop.

    A reading is an event, with its id and time, from the moment it is on disk: whatever happens later, it is
    sent with these. While the buffer is full nothing is collected, and that is logged once.
    """

    def __init__(
        self,
        *,
        interval_s: float,
        origin: Origin,
        readings: Readings,
        buffer: Buffer,
        clock: Clock,
        new_id: Callable[[], str],
        collected: asyncio.Event,
    ) -> None:
        self._interval_s = interval_s
        self._origin = origin
        self._readings = readings
        self._buffer = buffer
        self._clock = clock
        self._new_id = new_id
        self._collected = collected
        self._full = False

    async def run(self, stopping: asyncio.Event) -> None:
        """Collects at once and then every interval, without drift."""
        due_s = self._clock.monotonic()
        asked = asyncio.create_task(stopping.wait())
        try:
            while not stopping.is_set():
                await self.collect()
                due_s = max(due_s + self._interval_s, self._clock.monotonic())
                pause = asyncio.create_task(self._clock.sleep(due_s - self._clock.monotonic()))
                await asyncio.wait({pause, asked}, return_when=asyncio.FIRST_COMPLETED)
                pause.cancel()
        finally:
            asked.cancel()

    async def collect(self) -> int:
        """Reads everything once; returns how many events were put on disk."""
        readings = await self._readings.read()
        time_us = int(self._clock.now().timestamp() * 1_000_000)
        events = [to_event(reading, self._origin, self._new_id(), time_us) for reading in readings]
        records = [event.SerializeToString() for event in events]
        try:
            await asyncio.to_thread(self._buffer.append, records)
        except (BufferFullError, OSError) as error:
            if not self._full:
                _log.error("not collecting: the buffer takes no more", error=str(error))
            self._full = True
            return 0
        self._full = False
        self._collected.set()
        return len(records)
