"""Time as an argument."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the time is, and waiting for it to pass. The fake one in testkit moves only when told to."""

    def now(self) -> datetime:
        """Wall-clock time, aware, UTC. May step; never use it for durations."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary point; never goes back."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Return after `delay_s` seconds."""
        ...


class SystemClock:
    """The machine's clock."""

    __slots__ = ()

    def now(self) -> datetime:
        """See `Clock.now`."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return time.monotonic()

    async def sleep(self, delay_s: float) -> None:
        """See `Clock.sleep`."""
        await asyncio.sleep(delay_s)
