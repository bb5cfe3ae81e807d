from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from types import SimpleNamespace
from uuid import UUID

import pytest
from google.protobuf.message import DecodeError
from prometheus_client import CollectorRegistry

from tlsy.contracts.billing.events.v1.events_pb2 import UsageRecorded
from tlsy.contracts.events import EVENTS_ACCEPTED
from tlsy.contracts.ingestion.events.v1 import events_pb2
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
from tlsy.eventlog.errors import InboxNotReady
from tlsy.ingestion.adapters.postgres.event_store import PostgresEventStore
from tlsy.ingestion.domain.events import Outcome
from tlsy.ingestion.handlers.ingest_events import ProducedRecord
from tlsy.ingestion.ports import RowsRefused
from tlsy.rpc.errors import InvalidArgument
from tlsy.runtime.clock import SystemClock
from tlsy.runtime.tracing import ORIGIN
from tlsy.tenancy.context import IsolationMode

MODES = list(IsolationMode)


async def stored(installation, tenant):
    async with installation.tenancy("ingestion").transaction(tenant.context, write=False) as tx:
        return await tx.fetchval("select count(*) from events")


@pytest.mark.parametrize("mode", MODES)
async def test_events_are_stored_in_every_mode_and_told_apart_when_they_come_again(
    installation, make_pipeline, make_events, mode
):
    tenant = await installation.provisioned_tenant(mode)
    first, again = make_events(20), None
    pipeline = make_pipeline()
    assert (await pipeline.run(tenant, "k", first, 100)).outcomes == [Outcome.ACCEPTED] * 20
    again = first[10:] + make_events(5, first=100)
    outcomes = (await pipeline.run(tenant, "k", again, 100)).outcomes
    assert outcomes == [Outcome.DUPLICATE] * 10 + [Outcome.ACCEPTED] * 5
    assert await stored(installation, tenant) == 25


@pytest.mark.parametrize(
    "texts",
    [
        [{}],
        [{"subject": "a\x1fb", "labels": {"k\x1f": "\x1f"}}],
        [{"source": "\x1f"}, {"site": "\x1f\x01", "data": b'{"a": 1}'}, {"subject": "\x02é"}],
        [{"source": "".join(map(chr, range(number, number + 99)))} for number in range(1, 1_000, 99)],
    ],
)
async def test_texts_are_stored_as_they_were_sent_whatever_characters_they_hold(
    installation, make_pipeline, make_events, texts
):
    tenant = await installation.provisioned_tenant()
    sent = [event for number, text in enumerate(texts) for event in make_events(1, first=number, **text)]
    await make_pipeline().run(tenant, "k", sent, 1)
    async with installation.tenancy("ingestion").transaction(tenant.context, write=False) as tx:
        kept = await tx.fetch(
            "select source, event_id, subject, site, labels::text, data::text from events"
            " order by event_id::int"
        )
    assert [(*row[:4], json.loads(row[4]), row[5]) for row in kept] == [
        (e.source, e.id, e.subject, e.site, dict(e.labels), e.data.decode() or None) for e in sent
    ]


async def test_two_replicas_that_get_the_same_batches_at_once_store_each_event_once(
    installation, make_pipeline, make_events
):
    tenant = await installation.provisioned_tenant()
    replicas = [make_pipeline(shard=0), make_pipeline(shard=1)]
    events = make_events(1000)
    batches = [events[start : start + 100] for start in range(0, 1000, 100)]
    answers = await asyncio.gather(
        *(replica.run(tenant, "k", batch, 1) for batch in batches for replica in replicas)
    )
    outcomes = [outcome for answer in answers for outcome in answer.outcomes]
    assert (outcomes.count(Outcome.ACCEPTED), outcomes.count(Outcome.DUPLICATE)) == (1000, 1000)
    assert await stored(installation, tenant) == 1000


async def test_a_stored_event_and_the_same_id_at_another_time_are_told_apart(
    installation, make_pipeline, make_events, published
):
    tenant = await installation.provisioned_tenant()
    pipeline, (event,) = make_pipeline(), make_events(1)
    await pipeline.run(tenant, "k", [event], 1)
    (later,) = make_events(1, time_us=event.time_us + 1_000)
    answer = await pipeline.run(tenant, "k", [event, later], 1)
    assert answer.outcomes == [Outcome.DUPLICATE, Outcome.ACCEPTED]
    told = [
        events_pb2.EventsAccepted.FromString(e.data) for e in published.events if e.type == EVENTS_ACCEPTED
    ]
    assert [e.time_us for part in told for e in part.events] == [event.time_us, later.time_us]


async def test_what_was_accepted_is_published_and_counted_with_the_same_transaction(
    installation, make_pipeline, make_events, published
):
    tenant = await installation.provisioned_tenant()
    await make_pipeline().run(tenant, "tenants/a/apiKeys/1", make_events(3) + make_events(1, source=""), 1)
    told = [e for e in published.events if e.type == EVENTS_ACCEPTED]
    assert [e.id for e in events_pb2.EventsAccepted.FromString(told[0].data).events] == ["0", "1", "2"]
    connection = await installation.connect("tlsy_relay", installation.common)
    outbox = await connection.fetch("select event_id, type from ingestion.outbox order by seq")
    assert {row["event_id"] for row in outbox} == {e.id for e in published.events}
    assert {(e.tenant_id, e.epoch) for e in published.events} == {(tenant.tenant_id, tenant.epoch)}
    (fact,) = [UsageRecorded.FromString(e.data) for e in published.events if e.type != EVENTS_ACCEPTED]
    assert (fact.tenant_id, fact.meter, fact.quantity) == (str(tenant.tenant_id), "events.accepted", 3)
    async with installation.tenancy("ingestion").transaction(tenant.context, write=False) as tx:
        minute = await tx.fetchrow("select principal, accepted, rejected from ingest_minutes")
    assert tuple(minute) == ("tenants/a/apiKeys/1", 3, 1)


async def test_events_that_fill_more_than_one_record_are_published_in_several(
    installation, make_pipeline, make_events, published
):
    tenant = await installation.provisioned_tenant()
    await make_pipeline().run(tenant, "k", make_events(200, data=b'{"a":"%s"}' % (b"x" * 9000)), 1)
    told = [e for e in published.events if e.type == EVENTS_ACCEPTED]
    assert len(told) > 3
    assert max(len(e.data) for e in told) <= 524_288
    assert sum(len(events_pb2.EventsAccepted.FromString(e.data).events) for e in told) == 200


async def test_a_batch_over_the_bounds_is_refused_before_it_is_read(installation, make_pipeline, make_events):
    tenant = await installation.provisioned_tenant()
    with pytest.raises(InvalidArgument) as caught:
        await make_pipeline().run(tenant, "k", make_events(1) * 10_001, 10_000_000)
    assert [v.reason for v in caught.value.violations] == ["TOO_MANY_EVENTS", "BATCH_TOO_LARGE"]
    assert await stored(installation, tenant) == 0


async def test_beyond_the_rate_events_are_deferred_and_not_lost(
    installation, make_pipeline, make_events, real_time_clock
):
    tenant = await installation.provisioned_tenant(entitlements={"ingest_events_per_s": 5})
    pipeline = make_pipeline(clock=real_time_clock)
    events = make_events(12)
    first = await pipeline.run(tenant, "k", events, 1)
    assert first.outcomes == [Outcome.ACCEPTED] * 10 + [Outcome.DEFERRED] * 2
    real_time_clock.advance(first.retry_after_s)
    again = await pipeline.run(tenant, "k", events[10:], 1)
    assert again.outcomes == [Outcome.ACCEPTED] * 2


async def test_one_tenant_at_its_rate_does_not_slow_another(installation, make_pipeline, make_events):
    slow = await installation.provisioned_tenant(entitlements={"ingest_events_per_s": 1})
    other = await installation.provisioned_tenant()
    pipeline = make_pipeline()
    await pipeline.run(slow, "k", make_events(50), 1)
    assert Outcome.DEFERRED not in (await pipeline.run(other, "k", make_events(50), 1)).outcomes


@pytest.mark.parametrize(
    ("away", "reason"),
    [
        (timedelta(days=-4), "TIME_TOO_OLD"),
        (timedelta(minutes=6), "TIME_IN_FUTURE"),
        (timedelta(days=3650), "TIME_IN_FUTURE"),
    ],
)
async def test_times_outside_the_window_are_rejected(installation, make_pipeline, make_events, away, reason):
    tenant = await installation.provisioned_tenant()
    time_us = int((SystemClock().now() + away).timestamp() * 1_000_000)
    answer = await make_pipeline().run(tenant, "k", make_events(1, time_us=time_us), 1)
    assert [p.reason for p in answer.problems] == [reason]


async def test_a_cancelled_batch_leaves_nothing_behind(installation, make_pipeline, make_events):
    tenant = await installation.provisioned_tenant()
    holder = await installation.connect(None, installation.common)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("lock table shared.ingest_counts in access exclusive mode")
    running = asyncio.create_task(make_pipeline().run(tenant, "k", make_events(10), 1))
    waiting = "select pg_blocking_pids(pid) from pg_stat_activity where wait_event_type = 'Lock'"
    async with asyncio.timeout(60):
        while await holder.fetchval(waiting) is None:
            await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await transaction.rollback()
    assert await stored(installation, tenant) == 0


async def test_events_older_than_the_tenant_keeps_them_are_too_old(installation, make_pipeline, make_events):
    tenant = await installation.provisioned_tenant(entitlements={"retention_days": 1})
    now_us = int(SystemClock().now().timestamp() * 1_000_000)
    kept = make_events(1, time_us=now_us - 23 * 3_600_000_000)
    answer = await make_pipeline().run(
        tenant, "k", kept + make_events(1, first=9, time_us=now_us - 25 * 3_600_000_000), 1
    )
    assert answer.outcomes == [Outcome.ACCEPTED, Outcome.REJECTED]
    assert [p.reason for p in answer.problems] == ["TIME_TOO_OLD"]


def record_of(time):
    return ProducedRecord(UUID(int=(int(time.timestamp() * 1000) << 80) | (7 << 76) | (2 << 62)), 0, 0)


async def test_a_record_of_a_day_that_the_inbox_has_not_yet_is_taken_later(
    installation, make_pipeline, make_events
):
    tenant = await installation.provisioned_tenant()
    pipeline, record = make_pipeline(), record_of(SystemClock().now() - timedelta(days=5))
    with pytest.raises(InboxNotReady):
        await pipeline.run(tenant, "k", make_events(1), 1, record)
    assert await stored(installation, tenant) == 0


@pytest.mark.parametrize("days", [-10, 3, 3000])
async def test_a_record_of_a_day_that_the_inbox_never_has_is_taken_all_the_same(
    installation, make_pipeline, make_events, days
):
    tenant = await installation.provisioned_tenant()
    record = record_of(SystemClock().now() + timedelta(days=days))
    answer = await make_pipeline().run(tenant, "k", make_events(1), 1, record)
    assert answer.outcomes == [Outcome.ACCEPTED]


class Strict(PostgresEventStore):
    """Refuses what is called bad, as the database refuses what nobody thought of."""

    async def insert(self, tx, rows):
        if await self.refused(tx, rows):
            raise RowsRefused("no")
        return await super().insert(tx, rows)

    async def refused(self, tx, rows):
        return [place for place, row in enumerate(rows) if row[3] == "bad"]


async def test_what_the_database_refuses_is_rejected_alone(installation, make_pipeline, make_events):
    tenant = await installation.provisioned_tenant()
    events = [*make_events(3), *make_events(1, source="bad"), *make_events(2, first=10)]
    answer = await make_pipeline(store=Strict(0)).run(tenant, "k", events, 1)
    assert answer.outcomes == [Outcome.ACCEPTED] * 3 + [Outcome.REJECTED] + [Outcome.ACCEPTED] * 2
    assert [(p.index, p.reason) for p in answer.problems] == [(3, "DATA_INVALID")]
    assert await stored(installation, tenant) == 5


async def test_batches_are_counted_without_naming_anybody(installation, make_pipeline, make_events):
    tenant = await installation.provisioned_tenant()
    registry = CollectorRegistry()
    pipeline = make_pipeline(registry=registry)
    now_us = int(SystemClock().now().timestamp() * 1_000_000)
    events = make_events(3, time_us=now_us - 60_000_000)
    await pipeline.run(tenant, "k", [*events, *make_events(1, source="")], 1)
    await pipeline.run(tenant, "k", [*events, *make_events(2, time_us=now_us)], 1)
    counts = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.value and not sample.name.endswith("_created")
    }
    assert counts == {
        ("tlsy_ingest_events_total", "accepted"): 5,
        ("tlsy_ingest_events_total", "duplicate"): 3,
        ("tlsy_ingest_events_total", "rejected"): 1,
        ("tlsy_ingest_problems_total", "SOURCE_INVALID"): 1,
        ("tlsy_ingest_late_total",): 6,
        ("tlsy_ingest_retimed_total",): 2,
    }


async def test_what_is_published_from_memory_goes_on_with_the_call_s_trace_and_cause(
    installation, make_pipeline, make_events, published
):
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    tenant = await installation.provisioned_tenant()
    token = ORIGIN.set(SimpleNamespace(traceparent=traceparent, principal="k", correlation_id="r-1"))
    try:
        await make_pipeline().run(tenant, "k", make_events(1), 1)
    finally:
        ORIGIN.reset(token)
    assert {(event.traceparent, event.principal, event.correlation_id) for event in published.events} == {
        (traceparent, "k", "r-1")
    }


def nested(depth):
    """An unknown field that holds itself so often."""
    return b"\xa3\x06" * depth + b"\xa4\x06" * depth


def is_read(message, data):
    try:
        message.FromString(data)
    except DecodeError:
        return False
    return True


async def test_what_its_readers_could_not_read_of_an_event_is_not_told_to_them(
    make_pipeline, make_events, installation, published
):
    """In the record that it is told in, it is nested deeper than in the call."""
    tenant = await installation.provisioned_tenant()
    deepest = max(depth for depth in range(200) if is_read(pb.Event, nested(depth)))
    events = make_events(3)
    sent = [
        pb.Event.FromString(event.SerializeToString() + nested(depth))
        for event, depth in zip(events, (1, deepest, deepest - 1), strict=True)
    ]
    answer = await make_pipeline().run(tenant, "k", sent, 1)
    assert answer.outcomes == [Outcome.ACCEPTED] * 3
    (told,) = [e.data for e in published.events if e.type == EVENTS_ACCEPTED]
    assert list(events_pb2.EventsAccepted.FromString(told).events) == [sent[0], events[1], sent[2]]
