"""Applies one tenant's deliveries in order: once each, retried while that helps, refused when it cannot."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import asyncpg
from opentelemetry.trace import SpanKind

from tlsy.eventlog.causes import cause_of
from tlsy.eventlog.dead_letters import OutsiderGauge
from tlsy.eventlog.delivery import Batch, Delivery, Direct, Each, parse
from tlsy.eventlog.errors import (
    Fenced,
    FinalError,
    InboxNotReady,
    RetryableError,
    TenantOverRate,
    TenantPaused,
    TooOld,
    WaitedTooLong,
)
from tlsy.runtime.causes import caused_by
from tlsy.runtime.ids import TenantId
from tlsy.runtime.logging import get_logger
from tlsy.runtime.tracing import span_after
from tlsy.tenancy.errors import (
    CatalogUnavailable,
    NotWritable,
    PlacementUnavailable,
    Retryable,
    TenantNotUnderstood,
    UnknownTenant,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
    from uuid import UUID

    from google.protobuf.message import Message

    from tlsy.contracts.cloudevents import CloudEvent
    from tlsy.eventlog.dead_letters import DeadLetterGauge, DeadLetters
    from tlsy.eventlog.delivery import Route
    from tlsy.eventlog.fence import PartitionFence
    from tlsy.eventlog.metrics import EventLogMetrics
    from tlsy.eventlog.ports import Received
    from tlsy.runtime.clock import Clock
    from tlsy.tenancy.catalog import Catalog
    from tlsy.tenancy.unit_of_work import UnitOfWork

_T = TypeVar("_T")

#: What the database may answer differently a moment later.
_TRANSIENT: Final = (
    RetryableError,
    Retryable,
    # A catalogue may hear of a tenant after its first event.
    UnknownTenant,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.InterfaceError,
    OSError,
)
#: The tenant's database is away, not ready yet, or closed for a move or a suspension, its entry in the
#: catalogue is of a newer release or cannot be asked for, or a handler paused the tenant: nothing is wrong
#: with the record. What else is tenancy's Retryable, such as a database that stays busy, parks once the tries
#: are used up.
_PARKS: Final = (
    PlacementUnavailable,
    NotWritable,
    TenantNotUnderstood,
    CatalogUnavailable,
    TenantPaused,
    InboxNotReady,
)


#: Refused through no fault of the code: a deleted tenant, one that sends more than it may, or could not be
#: served for long.
_FAULTLESS: Final = (UnknownTenant, TenantOverRate, WaitedTooLong)
_MAX_UNKNOWN: Final = 10_000


class TenantTransactions(Protocol):
    """Transactions in tenants' placements; `Tenancy` is one."""

    @property
    def catalog(self) -> Catalog:
        """What is known of the tenants."""
        ...

    async def run(
        self, tenant_id: TenantId, work: Callable[[UnitOfWork], Awaitable[_T]], *, write: bool
    ) -> _T:
        """Run `work` in one transaction of the tenant."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a delivery is tried before it is refused.

    Attributes:
        attempts: tries in all.
        busy_s: of tries against a busy database: each may wait for a lock, and the partition waits with it.
        first_wait_s: before the second, doubled each time, half of it random.
        longest_wait_s: limit of that.
        unknown_tenant_s: after that a tenant that stays unknown is not waited for at every record.
    """

    attempts: int = 8
    busy_s: float = 10.0
    first_wait_s: float = 0.05
    longest_wait_s: float = 5.0
    unknown_tenant_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Envelope:
    """A record and the event that was read from it; `parked` if it waited for its tenant."""

    record: Received
    event: CloudEvent
    parked: bool = False


class Applier:
    """One partition's way of applying; shared by its live records and its parked ones."""

    def __init__(
        self,
        group: str,
        *,
        routes: Mapping[str, Route],
        payloads: Mapping[str, type[Message]],
        transactions: TenantTransactions,
        fence: PartitionFence | None,
        dead_letters: DeadLetters,
        gauge: DeadLetterGauge,
        retry: RetryPolicy,
        inbox_retention: timedelta,
        clock: Clock,
        jitter: Callable[[], float],
        metrics: EventLogMetrics,
        assignment_epoch: int,
    ) -> None:
        self._group = group
        self._routes = routes
        self._payloads = payloads
        self._transactions = transactions
        self._fence = fence
        self._dead_letters = dead_letters
        self._gauge = gauge
        limits = dead_letters.outsiders
        self._outsiders = None if limits is None else OutsiderGauge(limits, clock.monotonic())
        self._retry = retry
        self._inbox_retention = inbox_retention
        self._clock = clock
        self._jitter = jitter
        self._metrics = metrics
        self._epoch = assignment_epoch
        self._read_below = 0
        self._unknown: dict[TenantId, float] = {}
        self._logger = get_logger("consumer").bind(group=group)

    async def apply(
        self, envelopes: Sequence[Envelope], done: list[Envelope], *, overflow: bool = False
    ) -> Exception | None:
        """Apply envelopes of one tenant in order, and add to `done` each that needs nothing more.

        Answers why the others cannot be applied now, None if there are none. Raises Fenced,
        DeadLetterLimitReached, and LogUnavailable when a dead letter cannot be written.

        Args:
            envelopes: in the order of their topic.
            done: grows, also when this raises.
            overflow: see `Delivery.overflow`.
        """
        left = envelopes
        while left:
            unit = self._unit(left)
            try:
                await self._apply_unit(unit, done, overflow=overflow)
            except (*_PARKS, Retryable) as why:
                return why
            left = left[len(unit) :]
        return None

    async def is_gone(self, tenant_id: TenantId) -> bool:
        """Whether the catalogue's owner knows no such tenant (any more); Retryable if it cannot be asked."""
        catalog = self._transactions.catalog
        try:
            catalog.tenant(tenant_id)
        except UnknownTenant:
            try:
                await catalog.refresh(tenant_id, 0)
            except UnknownTenant:
                return True
        return False

    def read_again(self, below: int) -> None:
        """The worker begins anew in a log that it has read up to this offset."""
        self._read_below = below

    def _was_seen(self, record: Received, error: Exception) -> bool:
        """Whether it is too old only because it is read again: what is new in a log is never that old."""
        read_again = isinstance(error, TooOld) and not isinstance(error, WaitedTooLong)
        return read_again and record.offset < self._read_below

    async def refuse(self, record: Received, error: Exception, attempt: int = 1) -> None:
        """Write the record to the dead letters. Raises DeadLetterLimitReached, LogUnavailable."""
        log = self._logger.error
        if self._outsiders is not None and isinstance(error, (FinalError, *_FAULTLESS)):
            log = self._logger.warning
            if not self._outsiders.admits(len(record.value), self._clock.monotonic()):
                self._metrics.dropped.labels(self._group).inc()
                return
            await self._dead_letters.write(record, error, attempt)
        elif isinstance(error, _FAULTLESS):
            await self._dead_letters.write(record, error, attempt)
        else:
            self._gauge.admit()
            await self._dead_letters.write(record, error, attempt)
            self._gauge.refused()
        self._metrics.dead_letters.labels(self._group).inc()
        log(
            "record refused",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            attempt=attempt,
            reason=getattr(error, "reason", type(error).__name__),
            error=str(error),
        )

    def skip(self, count: int = 1) -> None:
        """Count records that nobody here wants."""
        self._gauge.applied()
        self._metrics.skipped.labels(self._group).inc(count)

    def _unit(self, envelopes: Sequence[Envelope]) -> Sequence[Envelope]:
        kind = envelopes[0].event.type
        route = self._routes.get(kind)
        limit = route.limit if isinstance(route, Batch) else 1
        size = 1
        while size < min(limit, len(envelopes)) and envelopes[size].event.type == kind:
            size += 1
        return envelopes[:size]

    async def _apply_unit(self, unit: Sequence[Envelope], done: list[Envelope], *, overflow: bool) -> None:
        route = self._routes.get(unit[0].event.type)
        if route is None:
            self.skip()
            done.append(unit[0])
            return
        cause = cause_of([envelope.event for envelope in unit])
        with caused_by(cause, cause.tenant_id):
            settled = await self._settle(route, unit, cause, overflow=overflow)
        if settled:
            done.extend(unit)
            return
        for envelope in unit:
            await self._apply_unit([envelope], done, overflow=overflow)

    async def _settle(
        self, route: Route, unit: Sequence[Envelope], cause: CloudEvent, *, overflow: bool
    ) -> bool:
        """Apply or refuse; False for several of which some may be good."""
        try:
            with self._span(cause):
                await self._retried(route, unit, overflow=overflow)
        except _Refused as refused:
            if len(unit) > 1:
                return False
            if self._was_seen(unit[0].record, refused.error):
                self.skip()
            else:
                await self.refuse(unit[0].record, refused.error, refused.attempt)
        else:
            for _ in unit:
                self._gauge.applied()
        return True

    @contextmanager
    def _span(self, cause: CloudEvent) -> Iterator[None]:
        with span_after(self._metrics.tracer, cause.type, SpanKind.CONSUMER, cause.traceparent) as span:
            if span is not None:
                span.set_attribute("tlsy.tenant", str(cause.tenant_id))
                span.set_attribute("tlsy.principal", cause.principal)
                span.set_attribute("tlsy.request_id", cause.correlation_id)
            yield

    async def _retried(self, route: Route, unit: Sequence[Envelope], *, overflow: bool) -> None:
        """Raises _Refused, Fenced, and what parks."""
        attempt, began = 1, self._clock.monotonic()
        while True:
            try:
                await self._once(route, unit, attempt, overflow=overflow)
            except (*_PARKS, Fenced) as error:
                if overflow and isinstance(error, TenantOverRate):
                    raise _Refused(error, attempt) from error
                raise
            except _TRANSIENT as error:
                waits = isinstance(error, Retryable)
                late = waits and self._clock.monotonic() - began >= self._retry.busy_s
                if late or attempt >= self._retry.attempts or await self._stays_unknown(error, unit):
                    # Of several, each may be little enough to do.
                    if waits and len(unit) == 1:
                        raise
                    raise _Refused(error, attempt) from error
                self._metrics.retries.labels(self._group).inc()
                wait_s = min(self._retry.first_wait_s * 2 ** (attempt - 1), self._retry.longest_wait_s)
                await self._clock.sleep(wait_s * (0.5 + 0.5 * self._jitter()))
                attempt += 1
            except Exception as error:
                raise _Refused(error, attempt) from error
            else:
                return

    async def _stays_unknown(self, error: Exception, unit: Sequence[Envelope]) -> bool:
        """Whether its tenant has been unknown for so long that no more tries are due: it was deleted."""
        if not isinstance(error, UnknownTenant):
            return False
        tenant_id, now = TenantId(unit[0].event.tenant_id), self._clock.monotonic()
        since = self._unknown.get(tenant_id)
        if since is not None and now - since >= self._retry.unknown_tenant_s:
            return True
        if len(self._unknown) >= _MAX_UNKNOWN:
            self._unknown.clear()
        try:
            unknown = await self.is_gone(tenant_id)
        except Retryable:
            # Others are not to wait for the owner; a dead letter can be worked through when it is back.
            unknown = True
        if unknown:
            self._unknown.setdefault(tenant_id, now)
        else:
            self._unknown.pop(tenant_id, None)
        return False

    async def _once(self, route: Route, unit: Sequence[Envelope], attempt: int, *, overflow: bool) -> None:
        deliveries = [self._delivery(envelope, attempt, overflow=overflow) for envelope in unit]
        if isinstance(route, Direct):
            await route.handle(deliveries[0])
            self._metrics.applied.labels(self._group).inc()
            return
        handled = await self._transactions.run(
            TenantId(deliveries[0].event.tenant_id),
            lambda tx: self._effect(route, deliveries, tx),
            write=True,
        )
        self._metrics.applied.labels(self._group).inc(handled)
        self._metrics.duplicates.labels(self._group).inc(len(deliveries) - handled)

    async def _effect(self, route: Each | Batch, deliveries: Sequence[Delivery], tx: UnitOfWork) -> int:
        """The transaction: fence, inbox rows, handler. Answers how many were first deliveries."""
        new = await self._first_deliveries(tx, [delivery.event for delivery in deliveries])
        first = []
        for delivery in deliveries:
            if delivery.event.id in new:
                new.remove(delivery.event.id)
                first.append(delivery)
        if not first:
            return 0
        if isinstance(route, Batch):
            await route.handle(first, tx)
        else:
            await route.handle(first[0], tx)
        return len(first)

    async def _first_deliveries(self, tx: UnitOfWork, events: Sequence[CloudEvent]) -> set[UUID]:
        try:
            if self._fence is not None:
                return await self._fence.first_deliveries(tx, self._epoch, [event.id for event in events])
            return {event.id for event in events if await tx.first_delivery(self._group, event.id)}
        except asyncpg.CheckViolationError:
            # A service that is new to the database has the inbox of a few days only, until the next upkeep.
            # Nobody makes the partition of a day that is far ahead.
            written = max(map(_written, events))
            if written > self._clock.now():
                text = f"its id is of {written.date()}, a day that the inbox does not have"
                raise FinalError("WRITTEN_AHEAD", text) from None
            raise InboxNotReady(min(map(_written, events)).date()) from None

    def _delivery(self, envelope: Envelope, attempt: int, *, overflow: bool) -> Delivery:
        event = envelope.event
        if not isinstance(self._routes[event.type], Direct):
            written = _written(event)
            if written < self._clock.now() - self._inbox_retention:
                why = f"written at {written.isoformat()}, before what the inbox remembers"
                raise WaitedTooLong(why) if envelope.parked else TooOld(why)
        return Delivery(
            event=event,
            message=parse(event, self._payloads),
            record=envelope.record,
            attempt=attempt,
            assignment_epoch=self._epoch,
            overflow=overflow,
        )


class _Refused(FinalError):  # noqa: N818 - read as a fact
    def __init__(self, error: Exception, attempt: int) -> None:
        super().__init__("REFUSED", str(error))
        self.error = error
        self.attempt = attempt


def _written(event: CloudEvent) -> datetime:
    return datetime.fromtimestamp((event.id.int >> 80) / 1000, UTC)
