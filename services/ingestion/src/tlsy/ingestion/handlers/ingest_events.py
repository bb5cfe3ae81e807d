"""Takes a batch of events: the one pipeline behind the RPC and the producers' topic.

Checked, sorted, stored, counted and put into the outbox in one transaction; answered after its commit, with
an outcome per event. What is not stored is told apart: duplicates are no fault, rejected events will never be
taken, deferred ones are to be sent again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import asyncpg
from google.protobuf.message import DecodeError

from tlsy.contracts.billing.events.v1 import events_pb2 as billing
from tlsy.contracts.cloudevents import CloudEvent
from tlsy.contracts.events import EVENTS_ACCEPTED, usage_recorded
from tlsy.contracts.ingestion.events.v1.events_pb2 import EventsAccepted
from tlsy.contracts.ingestion.v1.encoded_pb2 import EncodedEvent, EncodedEvents
from tlsy.eventlog.errors import InboxNotReady
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
from tlsy.ingestion.domain.meter import Hold, TenantMeter, month_start, quota_of
from tlsy.ingestion.domain.recent import RecentIds
from tlsy.ingestion.ports import RecordOutcome, RowsRefused, Tally
from tlsy.rpc.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from tlsy.ingestion.domain.events import Row
    from tlsy.ingestion.domain.limits import Quota
    from tlsy.ingestion.domain.untold import Untold
    from tlsy.ingestion.ports import AfterCommit, BatchObserver, EventStore
    from tlsy.runtime.clock import Clock
    from tlsy.runtime.ids import TenantId, Uuid7
    from tlsy.tenancy.catalog import TenantEntry
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork

#: A record in the outbox is at most 512 KiB; an event is at most 32 KiB.
_MAX_RECORD_BYTES: Final = 480 * 1024
#: The relay leaves rows alone for so long, because they are published from memory after the commit.
_SWEEP_AFTER_S: Final = 5.0
_MAX_METERS: Final = 20_000
_MAX_READINGS: Final = 3
_RECENT_IDS: Final = 50_000
_DAY_US: Final = 86_400_000_000
#: Rules wait so long for an event, unless they say otherwise.
_LATE_US: Final = 30_000_000
_US: Final = timedelta(microseconds=1)
#: What the inbox remembers: records that were taken, and such whose refusal was told.
_TAKEN: Final = "ingestion"
_REFUSED: Final = "ingestion.refused"
#: It has partitions for so long, and for tomorrow. A producer's time of its record may be any.
_INBOX_KEEPS: Final = timedelta(days=9)
_INBOX_AHEAD: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class ProducedRecord:
    """The producer's record that a batch came in; its id is a UUIDv7, the same at every delivery."""

    id: UUID
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of a batch.

    Attributes:
        outcomes: one per event, in the order of the batch.
        problems: of the rejected ones; at least one of each.
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
    events: Sequence[bytes]
    granted: int
    record: ProducedRecord | None
    meter: TenantMeter
    hold: Hold


@dataclass(slots=True)
class _Work:
    """A batch on its way through one transaction."""

    outcomes: list[Outcome]
    problems: list[Problem]
    rows: list[Row]
    encoded: Sequence[bytes]
    quota_stage: str = "within"
    quota_passed_at: datetime | None = None

    def reject(self, row: Row, reason: str, field: str, message: str) -> None:
        """One row's event will not be taken; the caller leaves the row out."""
        self.outcomes[row[2]] = Outcome.REJECTED
        self.problems.append(Problem(row[2], reason, field, message))

    def reject_repeats(self, firsts: Mapping[int, int]) -> None:
        """What repeats an event of the batch that will not be taken is no duplicate of anything stored."""
        problems = {problem.index: problem for problem in self.problems} if firsts else {}
        for index, first in firsts.items():
            if self.outcomes[first] is Outcome.REJECTED:
                self.outcomes[index] = Outcome.REJECTED
                self.problems.append(replace(problems[first], index=index))


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
        untold: Untold,
        observer: BatchObserver,
    ) -> None:
        self._tenancy = tenancy
        self._store = store
        self._after_commit = after_commit
        self._clock = clock
        self._ids = ids
        self._lateness_us = lateness // _US
        self._untold = untold
        self._observer = observer
        self._recent = RecentIds(_RECENT_IDS)
        self._meters: OrderedDict[TenantId, TenantMeter] = OrderedDict()

    async def run(
        self,
        tenant: TenantEntry,
        principal: str,
        events: Sequence[bytes],
        size_bytes: int,
        record: ProducedRecord | None = None,
    ) -> Ingested:
        """Ingests a batch of events as they are encoded.

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
            if deferred and record is None:
                self._put_off(tenant.tenant_id, principal, deferred)
            return Ingested([Outcome.DEFERRED] * deferred, (), retry_after_s)
        events = list(events)
        sent = _Sent(tenant, principal, events, granted, record, meter, Hold(meter))
        try:
            batch = read_batch(events[:granted], self._window(tenant))
            work, published = await self._commit(sent, batch)
        except BaseException:
            meter.bucket.give_back(granted)
            sent.hold.end(0)
            raise
        tally = _tally(work.outcomes)
        sent.hold.end(tally.accepted)
        if work.quota_passed_at is not None:
            meter.passed_at = work.quota_passed_at
        if published:
            self._after_commit(tenant.context, published)
        self._observe(sent, batch, work, tally)
        return Ingested(work.outcomes, work.problems, retry_after_s)

    async def refuse(self, tenant: TenantEntry, record: ProducedRecord, problems: Sequence[Problem]) -> None:
        """Tells the tenant of a producer's record that was refused as a whole, within its rate."""
        if not self._meter(tenant).bucket.take(1, self._clock.monotonic()):
            return

        async def keep(tx: UnitOfWork) -> None:
            now = self._clock.now()
            if await _is_first(tx, _REFUSED, record, now):
                await self._keep_outcome(tx, record, Tally(), problems, now)

        await self._tenancy.run(tenant.tenant_id, keep, write=True)

    def _put_off(self, tenant_id: TenantId, principal: str, deferred: int) -> None:
        """Not for a producer's record: it is parked and comes again by itself."""
        self._untold.deferred(tenant_id, principal, deferred, self._clock.now())
        self._observer.ingested(Tally(deferred=deferred), (), late=0, retimed=0)

    def _observe(self, sent: _Sent, batch: Batch, work: _Work, tally: Tally) -> None:
        now = self._clock.now()
        tenant_id = sent.tenant.tenant_id
        self._untold.counted(tenant_id, now)
        late = bisect_left(batch.rows, (_us(now) - _LATE_US,)) if batch.rows else 0
        retimed = self._recent.note(tenant_id, work.rows)
        self._observer.ingested(tally, work.problems, late=late, retimed=retimed)
        if work.quota_stage != "within":
            self._observer.passed_quota(work.quota_stage)

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

    def _window(self, tenant: TenantEntry) -> TimeWindow:
        """What is older than the tenant keeps events is not taken: it would be deleted at once."""
        now_us = _us(self._clock.now())
        kept_days = tenant.entitlements.get("retention_days")
        lateness_us = self._lateness_us if kept_days is None else min(self._lateness_us, kept_days * _DAY_US)
        return TimeWindow(now_us - lateness_us, now_us + MAX_AHEAD_US)

    async def _commit(self, sent: _Sent, batch: Batch) -> tuple[_Work, Sequence[CloudEvent]]:
        """In one transaction; in a second one if the database refuses rows that were found good."""
        tenant_id = sent.tenant.tenant_id
        try:
            return await self._tenancy.run(
                tenant_id, lambda tx: self._store_batch(tx, sent, batch), write=True
            )
        except RowsRefused:
            refused = await self._tenancy.run(
                tenant_id, lambda tx: self._store.refused(tx, batch.rows), write=False
            )
            if not refused:
                raise
        text = "is no JSON that can be stored"
        batch.problems += [Problem(batch.rows[at][2], "DATA_INVALID", "data", text) for at in refused]
        batch.rows = _without(batch.rows, refused)
        return await self._tenancy.run(tenant_id, lambda tx: self._store_batch(tx, sent, batch), write=True)

    async def _store_batch(
        self, tx: UnitOfWork, sent: _Sent, batch: Batch
    ) -> tuple[_Work, Sequence[CloudEvent]]:
        now = self._clock.now()
        if sent.record is not None and not await _is_first(tx, _TAKEN, sent.record, now):
            return _Work([Outcome.DUPLICATE] * sent.granted, [], [], sent.events), ()
        outcomes = [Outcome.ACCEPTED] * sent.granted
        outcomes += [Outcome.DEFERRED] * (len(sent.events) - sent.granted)
        work = _Work(outcomes, list(batch.problems), batch.rows, sent.events)
        for problem in batch.problems:
            outcomes[problem.index] = Outcome.REJECTED
        for index in batch.duplicates:
            outcomes[index] = Outcome.DUPLICATE
        await self._apply_quota(tx, sent, work, now)
        if work.rows:
            for place in await self._store.insert(tx, work.rows):
                outcomes[work.rows[place][2]] = Outcome.DUPLICATE
        work.reject_repeats(batch.duplicates)
        tally = _tally(work.outcomes)
        await self._store.add_counts(tx, sent.principal, tally, now)
        if sent.record is not None and tally.accepted < len(sent.events):
            await self._keep_outcome(tx, sent.record, tally, work.problems, now)
        events = self._cloud_events(tx, work, now)
        return work, [tx.publish(event, sweep_after_s=_SWEEP_AFTER_S) for event in events]

    async def _apply_quota(self, tx: UnitOfWork, sent: _Sent, work: _Work, now: datetime) -> None:
        """Holds what may be stored, and leaves out the rest; only what is new needs room."""
        meter, quota = sent.meter, quota_of(sent.tenant.entitlements)
        sent.hold.take(0)
        if meter.is_stale(quota, now, self._clock.monotonic()):
            await self._reread(tx, meter, quota, now)
        allowance = meter.allow(quota, len(work.rows), now)
        is_first = allowance.stage != "within" and meter.passed_at is None
        if is_first or allowance.events < len(work.rows):
            known = await self._store.known(tx, work.rows)
            for place in known:
                work.outcomes[work.rows[place][2]] = Outcome.DUPLICATE
            work.rows = _without(work.rows, known)
            allowance = meter.allow(quota, len(work.rows), now)
        sent.hold.take(allowance.events)
        if allowance.events < len(work.rows):
            by_place = sorted(work.rows, key=lambda row: row[2])
            for row in by_place[allowance.events :]:
                text = "the month's quota is used up; ask for a higher entitlement events_per_month"
                work.reject(row, "QUOTA_EXCEEDED", "", text)
            work.rows = sorted(by_place[: allowance.events])
        work.quota_stage = allowance.stage
        if allowance.stage != "within" and meter.passed_at is None:
            await self._store.mark_quota_passed(tx, month_start(now), quota.events, now)
            work.quota_passed_at = now

    async def _reread(self, tx: UnitOfWork, meter: TenantMeter, quota: Quota, now: datetime) -> None:
        """Reads the month's count, and again if a batch was stored meanwhile: who knows if it is in there.

        Counted twice it would keep events out that there is room for. While batches are stored all the time
        that is so in the end, until the next reading.
        """
        for _ in range(_MAX_READINGS):
            stored_before = meter.stored_ever
            month = await self._store.read_month(tx, month_start(now), quota.events)
            read_s = self._clock.monotonic()
            meter.reread(month.accepted, month.passed_at, quota, now, read_s, stored_before=stored_before)
            if meter.stored_ever == stored_before:
                return

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
        accepted = work.encoded
        if work.outcomes.count(Outcome.ACCEPTED) < len(work.outcomes):
            pairs = zip(work.encoded, work.outcomes, strict=True)
            accepted = [event for event, outcome in pairs if outcome is Outcome.ACCEPTED]
        if not accepted:
            return []
        blobs = [(EVENTS_ACCEPTED, data) for data in _records(accepted)]
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


async def _is_first(tx: UnitOfWork, group: str, record: ProducedRecord, now: datetime) -> bool:
    """Whether this is the record's first delivery, as far as the inbox remembers; commits with `tx`."""
    written = datetime.fromtimestamp((record.id.int >> 80) / 1000, UTC)
    if not now - _INBOX_KEEPS <= written <= now + _INBOX_AHEAD:
        return True
    try:
        return await tx.first_delivery(group, record.id)
    except asyncpg.CheckViolationError:
        # A database that is new to the service has the inbox of a few days only, until the next upkeep.
        raise InboxNotReady(written.date()) from None


def _tally(outcomes: Sequence[Outcome]) -> Tally:
    return Tally(
        accepted=outcomes.count(Outcome.ACCEPTED),
        duplicates=outcomes.count(Outcome.DUPLICATE),
        rejected=outcomes.count(Outcome.REJECTED),
        deferred=outcomes.count(Outcome.DEFERRED),
    )


def _us(time: datetime) -> int:
    return int(time.timestamp() * 1_000_000)


def _without(rows: Sequence[Row], places: Sequence[int]) -> list[Row]:
    left_out = frozenset(places)
    return [row for place, row in enumerate(rows) if place not in left_out]


def _records(events: Sequence[bytes]) -> list[bytes]:
    """The events as one EventsAccepted, or as several where they do not fit into one; all can be read."""
    return [_record(part) for part in _parts(events)]


def _record(events: Sequence[bytes]) -> bytes:
    """Events as one EventsAccepted that can be read.

    A message may be nested so deep only, and in there an event is deeper than where it was read. One that
    nobody could read in there is told without its unknown fields: nothing else is so deep, and they are not
    stored either.
    """
    record = EncodedEvents(events=events).SerializeToString()
    try:
        EventsAccepted.FromString(record)
    except DecodeError:
        if len(events) > 1:
            return b"".join(_record([event]) for event in events)
        event = EncodedEvent.FromString(events[0])
        event.DiscardUnknownFields()
        return EncodedEvents(events=[event.SerializeToString()]).SerializeToString()
    return record


def _parts(events: Sequence[bytes]) -> list[Sequence[bytes]]:
    """Slices of which each fits into one record."""
    sizes = [len(event) + 8 for event in events]
    if sum(sizes) <= _MAX_RECORD_BYTES:
        return [events]
    parts: list[Sequence[bytes]] = []
    start = size = 0
    for place, bytes_ in enumerate(sizes):
        if size + bytes_ > _MAX_RECORD_BYTES:
            parts.append(events[start:place])
            start, size = place, 0
        size += bytes_
    parts.append(events[start:])
    return parts
