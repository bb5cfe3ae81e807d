"""Keeps a copy in memory: every process reads every event, in no group, from the present on.

First the tail is fixed at the end of the log, then the snapshot is taken, then events are applied: what
happens between is in the tail, and what is in both is told by its version. The broker's memory is not
trusted: when the log was lost, all of it begins again, and the copy is kept meanwhile. So it does where
another incarnation begins: of a log that was cut and grew again, what is new below the position is missed.
Where nobody needs a copy unless somebody looks on, the log is read for no longer than it is held.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from tlsy.eventlog.cloudevents import log_of
from tlsy.eventlog.delivery import decode_event
from tlsy.eventlog.errors import LogUnavailable, Poison, RetryableError
from tlsy.runtime.causes import caused_by
from tlsy.runtime.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from datetime import datetime

    from tlsy.contracts.cloudevents import CloudEvent
    from tlsy.eventlog.metrics import EventLogMetrics
    from tlsy.eventlog.ports import Received, Tail
    from tlsy.runtime.clock import Clock

_FETCH_RECORDS: Final = 1_000
_FETCH_TIMEOUT_S: Final = 0.5
_CHECK_S: Final = 2.0
_RETRY_MIN_S: Final = 0.05
_RETRY_MAX_S: Final = 0.8


class Broadcast:
    """A component that calls `snapshot` and `apply`; see the module's text.

    `apply` must ignore what is not newer than what it has (versions), and must not raise: what it cannot use
    it skips. Poison is skipped and logged: a copy has no dead letters.
    """

    def __init__(
        self,
        name: str,
        *,
        tail: Callable[[], Tail],
        snapshot: Callable[[], Awaitable[None]],
        apply: Callable[[CloudEvent], None],
        clock: Clock,
        jitter: Callable[[], float],
        metrics: EventLogMetrics,
        on_demand: bool = False,
        lost: Callable[[datetime], None] | None = None,
    ) -> None:
        """Wire it.

        Args:
            name: of the component, and in metrics.
            tail: makes a reader of the topics' ends.
            snapshot: replaces or merges the whole copy. May raise RetryableError: it is called again.
            apply: one event.
            clock: for back-off and age.
            jitter: a number from 0 to 1, another each time.
            metrics: of the process.
            on_demand: read nothing but while it is held; see `held`.
            lost: is told since when events may be missing, once the log cannot be followed any more: for whom
                no snapshot fills the gap.
        """
        self._name = name
        self._tail_of = tail
        self._snapshot = snapshot
        self._apply = apply
        self._clock = clock
        self._jitter = jitter
        self._metrics = metrics
        self._logger = get_logger("broadcast").bind(broadcast=name)
        self._complete = asyncio.Event()
        self._on_demand = on_demand
        self._lost = lost
        self._holders = 0
        self._wanted = asyncio.Event()
        if not on_demand:
            self._wanted.set()
        self._stopping = asyncio.Event()
        self._live_at: float | None = None
        self._main: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """See `Component.name`."""
        return self._name

    async def complete(self) -> None:
        """Return once the snapshot is there and every later event will be applied."""
        await self._complete.wait()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """The log is followed until the block ends, which begins as soon as `complete` returns.

        Without a broker that is when there is one again. If it is lost within the block, `lost` is told.
        """
        self._holders += 1
        self._wanted.set()
        try:
            await self._complete.wait()
            yield
        finally:
            self._holders -= 1
            if self._on_demand and not self._holders:
                self._wanted.clear()

    def stale_s(self) -> float:
        """Seconds since the copy was last known to follow the log; infinite before the first snapshot."""
        return float("inf") if self._live_at is None else self._clock.monotonic() - self._live_at

    async def start(self) -> None:
        """Begin."""
        self._main = asyncio.create_task(self._run(), name=self._name)

    async def stop(self, grace_s: float) -> None:
        """End; there is nothing to finish."""
        self._stopping.set()
        self._wanted.set()
        if self._main is None:
            return
        _, late = await asyncio.wait({self._main}, timeout=grace_s)
        if late:
            self._main.cancel()
            await asyncio.wait(late)

    async def wait(self) -> None:
        """See `Component.wait`."""
        if self._main is not None:
            await asyncio.wait({self._main})
            if not self._main.cancelled():
                self._main.result()

    async def _run(self) -> None:
        failures = 0
        told: dict[str, int] = {}
        while not self._stopping.is_set():
            if not self._wanted.is_set():
                self._metrics.broadcast_stale_s.remove(self._name)
                await self._wanted.wait()
                self._live_at = self._clock.monotonic()
                continue
            tail = self._tail_of()
            try:
                await tail.open()
                await self._snapshot()
                failures = 0
                self._complete.set()
                await self._follow(tail, told)
            except (RetryableError, OSError) as error:
                failures += 1
                if self._lost is not None and self._complete.is_set():
                    self._lost(self._clock.now() - timedelta(seconds=self.stale_s()))
                self._metrics.broadcast_stale_s.labels(self._name).set(self.stale_s())
                self._logger.warning("not following", error=str(error))
            finally:
                self._complete.clear()
                await tail.close()
            wait_s = min(_RETRY_MIN_S * 2 ** min(failures, 8), _RETRY_MAX_S) * (0.5 + 0.5 * self._jitter())
            if not self._stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), wait_s)

    async def _follow(self, tail: Tail, told: dict[str, int]) -> None:
        """Apply events until the log is lost or nobody holds it any more; `told`: see `_check_log`."""
        check_at = self._clock.monotonic() + _CHECK_S
        self._live_at = self._clock.monotonic()
        seen: dict[str, int] = {}
        while not self._stopping.is_set():
            for record in await tail.fetch(max_records=_FETCH_RECORDS, timeout_s=_FETCH_TIMEOUT_S):
                _check_log(record, seen, told)
                try:
                    event = decode_event(record)
                except Poison as poison:
                    self._logger.warning("record skipped", topic=record.topic, error=str(poison))
                else:
                    with caused_by(event, event.tenant_id):
                        self._apply(event)
            if self._clock.monotonic() >= check_at:
                if not self._wanted.is_set():
                    return
                if await tail.lost():
                    raise LogUnavailable("the log was lost")
                self._live_at = self._clock.monotonic()
                check_at = self._live_at + _CHECK_S
            self._metrics.broadcast_stale_s.labels(self._name).set(self.stale_s())


def _check_log(record: Received, seen: dict[str, int], told: dict[str, int]) -> None:
    """Raises LogUnavailable if the record is of a later incarnation than one of its topic that was followed.

    Once of each: relays learn of it one after the other, and their records alternate.

    Args:
        record: from the tail.
        seen: topic to the latest incarnation since the tail was opened.
        told: topic to the latest that was raised for.
    """
    log = log_of(record.headers)
    if log is None or log <= seen.setdefault(record.topic, log):
        return
    seen[record.topic] = log
    if log > told.get(record.topic, 0):
        told[record.topic] = log
        raise LogUnavailable(f"incarnation {log} of {record.topic} follows another")
