"""A clock that moves only when told to."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from typing import Final

_DEFAULT_START: Final = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


class FakeClock:
    """A `tlsy.runtime.clock.Clock` for tests. Sleepers wake, in order of their time, when it is advanced."""

    def __init__(self, now: datetime = _DEFAULT_START) -> None:
        self._now = now
        self._elapsed_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._slept = 0

    def now(self) -> datetime:
        """See `Clock.now`."""
        return self._now

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self._elapsed_s

    async def sleep(self, delay_s: float) -> None:
        """Return once the clock was advanced by `delay_s`; at once, after one turn of the loop, for 0."""
        if delay_s <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        self._slept += 1
        heapq.heappush(self._sleepers, (self._elapsed_s + delay_s, self._slept, woken))
        await woken

    @property
    def sleepers(self) -> int:
        """How many wait; a test that waits for this to change knows that a loop went to sleep."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    def advance(self, by_s: float) -> None:
        """Move time on, and wake who is due. They run when the test awaits next."""
        self._elapsed_s += by_s
        self._now += timedelta(seconds=by_s)
        while self._sleepers and self._sleepers[0][0] <= self._elapsed_s:
            woken = heapq.heappop(self._sleepers)[2]
            if not woken.done():
                woken.set_result(None)
