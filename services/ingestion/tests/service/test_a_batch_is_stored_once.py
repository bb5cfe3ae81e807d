from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tlsy.contracts.events import EVENTS_ACCEPTED
from tlsy.contracts.ingestion.events.v1 import events_pb2
from tlsy.ingestion.domain.events import Outcome
from tlsy.rpc.errors import InvalidArgument
from tlsy.runtime.clock import SystemClock
from tlsy.tenancy.context import IsolationMode

MODES = list(IsolationMode)
FULL = {"ingest_events_per_s": 0}


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


async def test_two_replicas_that_get_the_same_batches_at_once_store_each_event_once(
    installation, make_pipeline, make_events
):
    tenant = await installation.provisioned_tenant()
    replicas = [make_pipeline(shard=0), make_pipeline(shard=1)]
    batches = [make_events(200, first=start, time_us=None) for start in range(0, 1000, 100)]
    answers = await asyncio.gather(
        *(replica.run(tenant, "k", batch, 1) for batch in batches for replica in replicas)
    )
    accepted = sum(answer.outcomes.count(Outcome.ACCEPTED) for answer in answers)
    assert accepted == await stored(installation, tenant)


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
    installation, make_pipeline, make_events, fake_clock
):
    tenant = await installation.provisioned_tenant(entitlements={"ingest_events_per_s": 5})
    pipeline = make_pipeline(clock=clock_at_real_time(fake_clock))
    events = make_events(12)
    first = await pipeline.run(tenant, "k", events, 1)
    assert first.outcomes == [Outcome.ACCEPTED] * 10 + [Outcome.DEFERRED] * 2
    fake_clock.advance(first.retry_after_s)
    again = await pipeline.run(tenant, "k", events[10:], 1)
    assert again.outcomes == [Outcome.ACCEPTED] * 2


async def test_one_tenant_at_its_rate_does_not_slow_another(installation, make_pipeline, make_events):
    slow = await installation.provisioned_tenant(entitlements={"ingest_events_per_s": 1})
    other = await installation.provisioned_tenant()
    pipeline = make_pipeline()
    await pipeline.run(slow, "k", make_events(50), 1)
    assert Outcome.DEFERRED not in (await pipeline.run(other, "k", make_events(50), 1)).outcomes


async def test_beyond_the_hard_end_of_the_quota_events_are_rejected_by_every_replica(
    installation, make_pipeline, make_events
):
    limits = {"events_per_month": 10, "events_hard_percent": 150, "events_grace_hours": 24}
    tenant = await installation.provisioned_tenant(entitlements=limits)
    first = await make_pipeline(shard=0).run(tenant, "k", make_events(12), 1)
    assert first.outcomes == [Outcome.ACCEPTED] * 12
    second = await make_pipeline(shard=1).run(tenant, "k", make_events(10, first=50), 1)
    assert second.outcomes == [Outcome.ACCEPTED] * 3 + [Outcome.REJECTED] * 7
    assert {p.reason for p in second.problems} == {"QUOTA_EXCEEDED"}
    assert await stored(installation, tenant) == 15


async def test_after_the_grace_the_quota_itself_is_the_end(
    installation, make_pipeline, make_events, fake_clock
):
    limits = {"events_per_month": 10, "events_hard_percent": 300, "events_grace_hours": 1}
    tenant = await installation.provisioned_tenant(entitlements=limits)
    pipeline = make_pipeline(clock=clock_at_real_time(fake_clock))
    assert Outcome.REJECTED not in (await pipeline.run(tenant, "k", make_events(12), 1)).outcomes
    fake_clock.advance(3601)
    later = await pipeline.run(tenant, "k", make_events(3, first=50), 1)
    assert later.outcomes == [Outcome.REJECTED] * 3


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
    async with asyncio.timeout(10):
        while await holder.fetchval(waiting) is None:
            await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await transaction.rollback()
    assert await stored(installation, tenant) == 0


def clock_at_real_time(clock):
    clock.advance((SystemClock().now() - clock.now()).total_seconds())
    return clock
