"""Takes a batch of events: the one pipeline behind the RPC and the producers' topic.

Checked, sorted, stored, counted and put into the outbox in one transaction; answered after its commit, with
an outcome per event. What is not stored is told apart: duplicates are no fault, rejected events will never be
taken, deferred ones are to be sent again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from tlsy.contracts.billing.events.v1 import events_pb2 as billing
from tlsy.contracts.cloudevents import CloudEvent
from tlsy.contracts.events import EVENTS_ACCEPTED, usage_recorded
from tlsy.contracts.ingestion.events.v1 import events_pb2
from tlsy.ingestion.domain.events import (
    MAX_AHEAD_US,
    MAX_BATCH_BYTES,
    MAX_EVENTS,
    Batch,
    Outcome,
    Problem,
    TimeWindow,
    read_batch,
)
from tlsy.ingestion.domain.meter import TenantMeter, month_start
from tlsy.ingestion.ports import RecordOutcome, Tally
from tlsy.rpc.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from tlsy.contracts.ingestion.v1 import ingestion_pb2
    from tlsy.ingestion.domain.events import Row
    from tlsy.ingestion.ports import AfterCommit, EventStore
    from tlsy.runtime.clock import Clock
    from tlsy.runtime.ids import TenantId, Uuid7
    from tlsy.tenancy.catalog import TenantEntry
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork

#: A record in the outbox is at most 512 KiB; an event is at most 25 KiB.
_MAX_RECORD_BYTES: Final = 480 * 1024
#: The relay leaves rows alone for so long, because they are published from memory after the commit.
_SWEEP_AFTER_S: Final = 5.0
_MAX_METERS: Final = 20_000


@dataclass(frozen=True, slots=True)
class ProducedRecord:
    """The producer's record that a batch came in."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of a batch.

    Attributes:
        outcomes: one per event, in the order of the batch.
        problems: of the rejected ones, all of them.
        retry_after_s: with any deferred one.
    """

    outcomes: Sequence[Outcome]
    problems: Sequence[Problem]
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class _Sent:
    """A batch as it came; the first `granted` of its events are within the tenant's rate."""

    tenant: TenantEntry
    principal: str
    events: Sequence[ingestion_pb2.Event]
    granted: int
    record: ProducedRecord | None


@dataclass(slots=True)
class _Work:
    """A batch on its way through one transaction."""

    outcomes: list[Outcome]
    problems: list[Problem]
    rows: list[Row]
    events: Sequence[ingestion_pb2.Event]


class IngestEvents:
    """The pipeline; one per process. It holds a meter per tenant, and forgets the least recently used."""

    def __init__(
        self,
        *,
        tenancy: Tenancy,
        store: EventStore,
        after_commit: AfterCommit,
        clock: Clock,
        ids: Uuid7,
        lateness: timedelta,
    ) -> None:
        self._tenancy = tenancy
        self._store = store
        self._after_commit = after_commit
        self._clock = clock
        self._ids = ids
        self._lateness_us = int(lateness / timedelta(microseconds=1))
        self._meters: OrderedDict[TenantId, TenantMeter] = OrderedDict()

    def touched(self) -> frozenset[TenantId]:
        """The tenants that this replica holds a meter of."""
        return frozenset(self._meters)

    async def run(
        self,
        tenant: TenantEntry,
        principal: str,
        events: Sequence[ingestion_pb2.Event],
        size_bytes: int,
        record: ProducedRecord | None = None,
    ) -> Ingested:
        """Ingests a batch.

        Raises:
            InvalidArgument: TOO_MANY_EVENTS or BATCH_TOO_LARGE; nothing was looked at.
            NotWritable, PlacementUnavailable: nothing was stored, or (outcome_unknown) sending again is safe.
        """
        _check_size(len(events), size_bytes)
        meter = self._meter(tenant)
        granted = self._grant(meter, len(events), whole=record is not None)
        deferred = len(events) - granted
        retry_after_s = meter.bucket.retry_after_s(deferred) if deferred else None
        if not granted:
            return Ingested([Outcome.DEFERRED] * deferred, (), retry_after_s)
        batch = read_batch(events[:granted], self._window())
        try:
            work, published = await self._tenancy.run(
                tenant.tenant_id,
                lambda tx: self._store_batch(tx, _Sent(tenant, principal, events, granted, record), batch),
                write=True,
            )
        except BaseException:
            meter.bucket.give_back(granted)
            raise
        meter.stored(work.outcomes.count(Outcome.ACCEPTED))
        if published:
            self._after_commit(tenant.context, published)
        return Ingested(work.outcomes, work.problems, retry_after_s)

    def _grant(self, meter: TenantMeter, wanted: int, *, whole: bool) -> int:
        """How many events the tenant's rate allows now; a producer's record is taken whole or not at all."""
        now_s = self._clock.monotonic()
        if not whole:
            return meter.bucket.take(wanted, now_s)
        return wanted if meter.bucket.take_all(wanted, now_s) else 0

    def _meter(self, tenant: TenantEntry) -> TenantMeter:
        rate_per_s = tenant.entitlements.get("ingest_events_per_s", 0)
        meter = self._meters.get(tenant.tenant_id)
        if meter is None:
            meter = self._meters[tenant.tenant_id] = TenantMeter(rate_per_s, self._clock.monotonic())
            if len(self._meters) > _MAX_METERS:
                self._meters.popitem(last=False)
        else:
            self._meters.move_to_end(tenant.tenant_id)
            meter.bucket.set_rate(rate_per_s)
        return meter

    def _window(self) -> TimeWindow:
        now_us = int(self._clock.now().timestamp() * 1_000_000)
        return TimeWindow(now_us - self._lateness_us, now_us + MAX_AHEAD_US)

    async def _store_batch(
        self, tx: UnitOfWork, sent: _Sent, batch: Batch
    ) -> tuple[_Work, Sequence[CloudEvent]]:
        now = self._clock.now()
        outcomes = [Outcome.ACCEPTED] * sent.granted
        outcomes += [Outcome.DEFERRED] * (len(sent.events) - sent.granted)
        work = _Work(outcomes, list(batch.problems), batch.rows, sent.events)
        for problem in batch.problems:
            outcomes[problem.index] = Outcome.REJECTED
        for index in batch.duplicates:
            outcomes[index] = Outcome.DUPLICATE
        await self._apply_quota(tx, sent.tenant, work, now)
        if work.rows:
            new_keys = await self._store.insert(tx, work.rows)
            if new_keys is not None:
                for row in work.rows:
                    if row[1] not in new_keys:
                        work.outcomes[row[2]] = Outcome.DUPLICATE
        tally = _tally(work.outcomes)
        await self._store.add_counts(tx, sent.principal, tally, now)
        if sent.record is not None and tally.accepted < len(sent.events):
            await self._keep_outcome(tx, sent.record, tally, work.problems, now)
        published = self._cloud_events(tx, work, now)
        for event in published:
            tx.publish(event, sweep_after_s=_SWEEP_AFTER_S)
        return work, published

    async def _apply_quota(self, tx: UnitOfWork, tenant: TenantEntry, work: _Work, now: datetime) -> None:
        meter = self._meter(tenant)
        if meter.is_stale(now, self._clock.monotonic()):
            month = await self._store.read_month(tx, month_start(now))
            meter.reread(month.accepted, month.passed_at, now, self._clock.monotonic())
        allowance = meter.allow(tenant.entitlements, len(work.rows), now)
        if allowance.stage != "within" and meter.passed_at is None:
            await self._store.mark_quota_passed(tx, month_start(now), now)
            meter.passed_at = now
        if allowance.events < len(work.rows):
            by_place = sorted(work.rows, key=lambda row: row[2])
            for row in by_place[allowance.events :]:
                work.outcomes[row[2]] = Outcome.REJECTED
                text = "the month's quota is used up; ask for a higher entitlement events_per_month"
                work.problems.append(Problem(row[2], "QUOTA_EXCEEDED", "", text))
            work.rows = sorted(by_place[: allowance.events])

    async def _keep_outcome(
        self,
        tx: UnitOfWork,
        record: ProducedRecord,
        tally: Tally,
        problems: Sequence[Problem],
        now: datetime,
    ) -> None:
        await self._store.add_outcome(
            tx,
            RecordOutcome(
                outcome_id=self._ids(),
                # Not the record's own time, which its producer may have set to anything.
                record_time=now,
                partition=record.partition,
                offset=record.offset,
                tally=tally,
                problems=problems[:100],
            ),
        )

    def _cloud_events(self, tx: UnitOfWork, work: _Work, now: datetime) -> list[CloudEvent]:
        accepted = [
            event
            for event, outcome in zip(work.events, work.outcomes, strict=True)
            if outcome is Outcome.ACCEPTED
        ]
        if not accepted:
            return []
        blobs = [
            (EVENTS_ACCEPTED, events_pb2.EventsAccepted(events=part).SerializeToString())
            for part in _parts(accepted)
        ]
        fact = billing.UsageRecorded(
            fact_id=str(self._ids()),
            tenant_id=str(tx.tenant_id),
            meter="events.accepted",
            quantity=len(accepted),
        )
        fact.time.FromDatetime(now)
        blobs.append((usage_recorded("ingestion"), fact.SerializeToString()))
        return [
            CloudEvent(
                id=self._ids(),
                type=type_,
                source="ingestion",
                tenant_id=tx.tenant_id,
                epoch=tx.epoch,
                time=now,
                key=tx.tenant_id.hex,
                data=data,
            )
            for type_, data in blobs
        ]


def _check_size(count: int, size_bytes: int) -> None:
    violations = []
    if count > MAX_EVENTS:
        violations.append(Violation("events", "TOO_MANY_EVENTS", f"at most {MAX_EVENTS}, are {count}"))
    if size_bytes > MAX_BATCH_BYTES:
        text = f"at most {MAX_BATCH_BYTES} bytes in all, are {size_bytes}"
        violations.append(Violation("events", "BATCH_TOO_LARGE", text))
    if violations:
        raise InvalidArgument(violations[0].reason, violations=violations)


def _tally(outcomes: Sequence[Outcome]) -> Tally:
    return Tally(
        accepted=outcomes.count(Outcome.ACCEPTED),
        duplicates=outcomes.count(Outcome.DUPLICATE),
        rejected=outcomes.count(Outcome.REJECTED),
        deferred=outcomes.count(Outcome.DEFERRED),
    )


def _parts(events: Sequence[ingestion_pb2.Event]) -> list[Sequence[ingestion_pb2.Event]]:
    """Slices of which each fits into one record."""
    parts: list[Sequence[ingestion_pb2.Event]] = []
    start = size = 0
    for place, event in enumerate(events):
        bytes_ = event.ByteSize() + 8
        if size + bytes_ > _MAX_RECORD_BYTES:
            parts.append(events[start:place])
            start, size = place, 0
        size += bytes_
    parts.append(events[start:])
    return parts
