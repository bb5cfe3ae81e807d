"""Publishes what a service's outboxes hold, in every database, and marks it.

One loop per database, each at its own pace: a database that is away backs off alone and takes its turns
through a gate of its own. In a database the rows go out in the order in which they were written
(`Outbox`), by one process at a time (its lock). Rows are marked only after the broker proved to be the one
that acknowledged them; whatever happens in between, they go out again and inboxes drop them.

When the topic's incarnation changed, rows whose records went with the old one are first made unpublished
again, unless every consumer group had applied them; being older, they go out before anything new.

Records of a hot path are published from memory after their commit (`publish_after_commit`). After any
failure of that path in a database its rows are left to the sweep until that has caught up, so that newer
records do not overtake.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import asyncpg
from opentelemetry.trace import SpanKind

from tlsy.eventlog.cloudevents import to_headers
from tlsy.eventlog.errors import EventLogError, LogChanged, LogUnavailable, RecordTooLarge
from tlsy.eventlog.lane import Lane
from tlsy.eventlog.ports import Record
from tlsy.eventlog.topic_log import TopicLog
from tlsy.runtime.logging import get_logger
from tlsy.runtime.tracing import begin_span, is_recorded, traceparent_of
from tlsy.tenancy.errors import TenancyError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.trace import Span, Tracer

    from tlsy.contracts.cloudevents import CloudEvent
    from tlsy.eventlog.metrics import EventLogMetrics
    from tlsy.eventlog.outboxes import Outbox, Outboxes
    from tlsy.eventlog.ports import LogInspector, PlacementSource, Position, Producer
    from tlsy.runtime.clock import Clock
    from tlsy.tenancy.context import Placement

_FAILURES: Final = (EventLogError, TenancyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
_DISCOVERY_S: Final = 2.0
_LISTEN_AGAIN_S: Final = 0.5
_UNMARK_ROWS: Final = 5_000
_COMPLAINT_S: Final = 30.0

_Sent = tuple["CloudEvent", "Position"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """Bounds of one service's relay.

    Attributes:
        partitions: of the service's topic, where it is made by us.
        batch_rows: rows of one transaction.
        batch_bytes: their data.
        publish_timeout_s: one batch; the transaction that holds the lead is open meanwhile.
        sweep_s: between sweeps of a database that nobody woke: what a crash left, and facts that can wait.
        retry_min_s: first wait after a failure, doubled each time, half of it random; and between tries to
            lead where only this process was woken.
        retry_max_s: longest wait; a relay resumes within it once the broker is back.
        database_retry_max_s: the same for a database that is away. One that is back is noticed after that and
            the turns before it of others that are away: each takes as long as connecting may.
        concurrency: databases that are swept at the same time; as many of those away are tried beside them.
        retention: how long the outbox keeps rows; what a lost log may be repaired from.
        hot_window_s: how long the sweep leaves rows of the hot path to their writer.
        hot_bytes: data that waits on the hot path of one database; what exceeds it is left to the sweep.
    """

    partitions: int = 12
    batch_rows: int = 500
    batch_bytes: int = 4_194_304
    publish_timeout_s: float = 5.0
    sweep_s: float = 2.0
    retry_min_s: float = 0.05
    retry_max_s: float = 0.8
    database_retry_max_s: float = 5.0
    concurrency: int = 4
    retention: timedelta = timedelta(days=7)
    hot_window_s: float = 5.0
    hot_bytes: int = 33_554_432


class Relay:
    """The relay of one service; see the module's text. A component."""

    def __init__(
        self,
        service: str,
        topic: str,
        *,
        outboxes: Outboxes,
        producer: Producer,
        inspector: LogInspector,
        source: PlacementSource,
        clock: Clock,
        jitter: Callable[[], float],
        metrics: EventLogMetrics,
        settings: RelaySettings | None = None,
    ) -> None:
        """Wire it.

        Args:
            service: names it in metrics and logs.
            topic: where all the service's events go.
            outboxes: the service's outboxes.
            producer: writes to the broker.
            inspector: knows the broker.
            source: all databases.
            clock: for back-off, record times and ages.
            jitter: a number from 0 to 1, another each time.
            metrics: of the process.
            settings: bounds; the defaults fit one machine.
        """
        self.settings = settings or RelaySettings()
        self._service = service
        self._topic = topic
        self._outboxes = outboxes
        self._producer = producer
        self._source = source
        self._clock = clock
        self._jitter = jitter
        self._metrics = metrics
        self._logger = get_logger("relay").bind(service=service)
        self._log = TopicLog(
            topic, self.settings.partitions, outboxes=outboxes, inspector=inspector, clock=clock
        )
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._gate = asyncio.Semaphore(self.settings.concurrency)
        self._suspects = asyncio.Semaphore(self.settings.concurrency)
        self._complaints = Complaints()
        self._stopping = asyncio.Event()
        self._main: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """See `Component.name`."""
        return f"{self._service}-relay"

    async def start(self) -> None:
        """Begin; neither the broker nor any database need be there."""
        self._main = asyncio.create_task(self._discover(), name=self.name)

    async def stop(self, grace_s: float) -> None:
        """Publish what is committed, as far as `grace_s` allows, and end."""
        self._stopping.set()
        for lane in self._lanes.values():
            lane.wake.set()
        hot = [lane.publishing for lane in self._lanes.values() if lane.publishing]
        if self._tasks:
            await asyncio.wait([*hot, *self._tasks.values()], timeout=grace_s)
        running = [*self._tasks.values(), *hot, *([self._main] if self._main else [])]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def wait(self) -> None:
        """See `Component.wait`."""
        if self._main is not None:
            await asyncio.wait({self._main})
            if not self._main.cancelled():
                self._main.result()

    def wake(self, placement: Placement) -> None:
        """Sweep the placement's database now: something was committed there."""
        lane = self._lanes.get((placement.cluster, placement.database))
        if lane is not None:
            lane.wake.set()

    def publish_after_commit(self, placement: Placement, events: Sequence[CloudEvent]) -> None:
        """Publish events whose rows are committed, from memory. Returns at once and never fails.

        The rows were written with `sweep_after_s=settings.hot_window_s`: what does not get out this way is
        found by the sweep.
        """
        lane = self._lanes.get((placement.cluster, placement.database))
        if lane is not None:
            lane.offer(events)
            self._publish_queue(lane)

    def _publish_queue(self, lane: Lane) -> None:
        if lane.swept and (lane.publishing is None or lane.publishing.done()):
            lane.publishing = asyncio.create_task(self._run_hot(lane), name=f"{self.name}-hot")

    async def _run_hot(self, lane: Lane) -> None:
        try:
            while events := lane.take(self.settings.batch_bytes):
                log = await self._log.current()
                if lane.reconciled_log != log:
                    lane.hold()
                    return
                sent = await self._send(lane, log, events)
                if not await self._outboxes.mark(lane.database.placement, sent, log):
                    self._log.doubt()
                    lane.hold()
                    return
                await self._note(log, sent, path="hot")
                if len(sent) < len(events):
                    lane.hold()
        except _FAILURES as error:
            lane.hold()
            self._count_failure(error)

    async def _send(self, lane: Lane, log: int, events: Sequence[CloudEvent]) -> list[_Sent]:
        """Write the events to the topic and prove that they are in incarnation `log` of it."""
        now = self._clock.now()
        spans, told = _below_spans(self._metrics.tracer, events)
        records = [
            Record(
                topic=self._topic,
                key=event.key.encode(),
                value=event.data,
                headers=to_headers(event, log=log),
                time=now,
            )
            for event in told
        ]
        reached = self._log.reached()
        try:
            positions = await self._publish(records)
            sent = [
                (e, position) for e, position in zip(events, positions, strict=True) if position is not None
            ]
            await self._log.verify(log, [position for _, position in sent], reached)
        except EventLogError:
            self._log.doubt()
            lane.hold()
            raise
        finally:
            for span in spans:
                span.end()
        if len(sent) < len(events):
            self._log.doubt()
        return sent

    async def _publish(self, records: Sequence[Record]) -> Sequence[Position | None]:
        try:
            return await self._producer.publish(records, timeout_s=self.settings.publish_timeout_s)
        except RecordTooLarge as refused:
            # Its row waits, and so does what follows in its partition, until the broker is told to take it.
            self._count_failure(refused)
            return refused.positions

    async def _discover(self) -> None:
        while not self._stopping.is_set():
            databases = {(d.placement.cluster, d.placement.database): d for d in self._source.databases()}
            for key, lane in list(self._lanes.items()):
                # A cluster that was not known yet may prove to be behind a pooler.
                if key not in databases or lane.database.notifies != databases[key].notifies:
                    self._tasks.pop(key).cancel()
                    del self._lanes[key]
            for key, database in databases.items():
                if key not in self._lanes:
                    self._lanes[key] = lane = Lane(database, self.settings.hot_bytes)
                    self._tasks[key] = asyncio.create_task(self._run(lane), name=f"{self.name}-{key[1]}")
            for task in self._tasks.values():
                if task.done() and not task.cancelled():
                    task.result()
            self._metrics.backlog_items.labels(self._service).set(sum(e.items for e in self._lanes.values()))
            self._metrics.backlog_age_s.labels(self._service).set(
                max((lane.age_s for lane in self._lanes.values()), default=0.0)
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _DISCOVERY_S)

    async def _run(self, lane: Lane) -> None:
        listening = asyncio.create_task(self._listen(lane)) if lane.database.notifies else None
        try:
            while True:
                last = self._stopping.is_set()
                lane.owes = lane.owes or lane.wake.is_set()
                lane.wake.clear()
                pause_s = await self._turn(lane)
                if last and (pause_s or lane.failures):
                    return
                if pause_s and not self._stopping.is_set():
                    await self._pause(lane, pause_s)
        finally:
            if listening is not None:
                listening.cancel()
                await asyncio.wait({listening})

    async def _turn(self, lane: Lane) -> float:
        """Sweep once; answers how long to wait before the next time, 0 when there is more."""
        try:
            async with self._suspects if lane.suspect else self._gate:
                more = await self._sweep(lane)
        except _FAILURES as error:
            lane.failures += 1
            self._count_failure(error)
            lane.suspect = not isinstance(error, EventLogError)
            longest_s = self.settings.database_retry_max_s if lane.suspect else self.settings.retry_max_s
            wait_s = min(self.settings.retry_min_s * 2 ** min(lane.failures, 16), longest_s)
            return float(wait_s * (0.5 + 0.5 * self._jitter()))
        if lane.failures:
            self._logger.info("outbox is relayed again", database=lane.database.placement.database)
        lane.failures, lane.suspect = 0, False
        if more:
            return 0.0
        # Who leads may have looked before the commit that woke this process, and nobody else was woken.
        insists = lane.owes and not lane.database.notifies
        return self.settings.retry_min_s if insists else self.settings.sweep_s

    async def _pause(self, lane: Lane, pause_s: float) -> None:
        # After a failure a wake-up says nothing about its cause being gone.
        event = self._stopping if lane.failures else lane.wake
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), pause_s)

    async def _listen(self, lane: Lane) -> None:
        while True:
            with contextlib.suppress(*_FAILURES):
                await self._outboxes.listen(lane.database.placement, lane.wake.set)
            await self._clock.sleep(_LISTEN_AGAIN_S)

    async def _sweep(self, lane: Lane) -> bool:
        """Publish one batch; whether there may be more."""
        log = await self._log.current()
        async with self._outboxes.lead(lane.database.placement) as outbox:
            if outbox is None:
                return False
            lane.owes = False
            if not await self._reconciled(lane, outbox, log):
                return True
            await lane.measure(outbox, self._clock.now(), self._clock.monotonic())
            lane.look()
            events = await outbox.unpublished(
                limit=self.settings.batch_rows, max_bytes=self.settings.batch_bytes, all_rows=not lane.swept
            )
            sent = await self._send(lane, log, events) if events else []
            if sent and not await outbox.mark(sent, log):
                # Another process has compared the rows with a later one, of which this one has yet to hear;
                # or never will, if the books were restored.
                self._log.doubt()
                lane.reconciled_log = 0
                raise LogChanged(f"{self._topic} is no longer in incarnation {log}")
        await self._note(log, sent, path="sweep")
        if len(sent) < len(events):
            raise LogUnavailable(f"{len(events) - len(sent)} of {len(events)} records were not acknowledged")
        lane.published({event.id for event in events})
        full = len(events) == self.settings.batch_rows
        if full or sum(len(event.data) for event in events) >= self.settings.batch_bytes:
            return True
        lane.caught_up()
        self._publish_queue(lane)
        return False

    async def _reconciled(self, lane: Lane, outbox: Outbox, log: int) -> bool:
        """Compare the rows' marks with the present log, one batch a call; whether that is done and committed.

        Whoever publishes in the transaction that compares may fail, and take the comparison back with it.
        """
        if lane.reconciled_log == log:
            return True
        stored = await outbox.reconciled_log()
        if stored == log:
            lane.reconciled_log = log
            return True
        if stored > log:
            # Another process knows of a later one, or the books were restored to what they were before it.
            self._log.doubt()
            if await self._log.current() != log:
                raise LogChanged(f"{self._topic} is no longer in incarnation {log}")
        lane.hold()
        now = self._clock.now()
        applied = await self._outboxes.applied(self._topic, now - self.settings.retention)
        day = now.date() + timedelta(days=1)
        first = (now - self.settings.retention).date() - timedelta(days=2)
        while day >= first:
            if await outbox.unmark_lost(day, log, applied, _UNMARK_ROWS) == _UNMARK_ROWS:
                return False
            day -= timedelta(days=1)
        await outbox.store_reconciled_log(log)
        await self._outboxes.forget_watermarks(self._topic, now - 2 * self.settings.retention)
        self._logger.info("outbox reconciled", database=lane.database.placement.database, log=log)
        return False

    async def _note(self, log: int, sent: Sequence[_Sent], *, path: str) -> None:
        self._metrics.published.labels(self._service, path).inc(len(sent))
        if sent:
            # The books may lag: what they lack only makes a shortened log harder to notice.
            with contextlib.suppress(*_FAILURES):
                await self._log.acknowledged(log, [position for _, position in sent])

    def _count_failure(self, error: Exception) -> None:
        reason = str(getattr(error, "reason", type(error).__name__))
        self._metrics.relay_failures.labels(self._service, reason).inc()
        times = self._complaints.times(reason, self._clock.monotonic())
        if times:
            self._logger.warning("relaying failed", reason=reason, error=str(error), times=times)


def _below_spans(
    tracer: Tracer | None, events: Sequence[CloudEvent]
) -> tuple[Sequence[Span], Sequence[CloudEvent]]:
    """A span for each event whose trace is recorded, and the events as they are told: below those."""
    if tracer is None or not any(is_recorded(event.traceparent) for event in events):
        return (), events
    spans, told = [], []
    for event in events:
        if is_recorded(event.traceparent):
            span = begin_span(tracer, event.type, SpanKind.PRODUCER, event.traceparent)
            spans.append(span)
            told.append(replace(event, traceparent=traceparent_of(span)))
        else:
            told.append(event)
    return spans, told


class Complaints:
    """Decides when to say again what goes on in every lane: each reason at once, then every 30 s at most."""

    __slots__ = ("_due_at", "_unsaid")

    def __init__(self) -> None:
        self._due_at: dict[str, float] = {}
        self._unsaid: Counter[str] = Counter()

    def times(self, reason: str, now_s: float) -> int:
        """How often `reason` was given since it was last to be said; 0 if it is not to be said now."""
        self._unsaid[reason] += 1
        if now_s < self._due_at.get(reason, now_s):
            return 0
        self._due_at[reason] = now_s + _COMPLAINT_S
        return self._unsaid.pop(reason)
