from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tlsy.ingestion.adapters.postgres.event_store import PostgresEventStore
from tlsy.ingestion.domain.events import Outcome
from tlsy.ingestion.domain.meter import REREAD_AFTER_S
from tlsy.ingestion.handlers.get_ingest_usage import GetIngestUsage
from tlsy.ingestion.ports import RowsRefused


def limits(events, percent=100, hours=0):
    return {"events_per_month": events, "events_hard_percent": percent, "events_grace_hours": hours}


async def stored(installation, tenant):
    async with installation.tenancy("ingestion").transaction(tenant.context, write=False) as tx:
        return await tx.fetchval("select count(*) from events")


async def passed(installation, tenant):
    async with installation.tenancy("ingestion").transaction(tenant.context, write=False) as tx:
        return await tx.fetchval("select count(*) from ingest_quota_passed")


@pytest.fixture
def make_pipeline(make_pipeline, real_time_clock):
    """By a clock that the test moves: a month that ends meanwhile would begin the quota anew."""
    return partial(make_pipeline, clock=real_time_clock)


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


async def test_a_quota_is_of_one_tenant(installation, make_pipeline, make_events):
    pipeline = make_pipeline()
    for _ in range(2):
        tenant = await installation.provisioned_tenant(entitlements=limits(2))
        answer = await pipeline.run(tenant, "k", make_events(3), 1)
        assert answer.outcomes == [Outcome.ACCEPTED, Outcome.ACCEPTED, Outcome.REJECTED]


async def test_what_repeats_a_rejected_event_in_its_batch_is_rejected_and_not_called_stored(
    installation, make_pipeline, make_events
):
    tenant = await installation.provisioned_tenant(entitlements=limits(2))
    events = make_events(3)
    answer = await make_pipeline().run(tenant, "k", [*events, events[0], events[2]], 1)
    stored_once = [Outcome.ACCEPTED, Outcome.ACCEPTED, Outcome.REJECTED, Outcome.DUPLICATE]
    assert answer.outcomes == [*stored_once, Outcome.REJECTED]
    assert [(p.index, p.reason) for p in answer.problems] == [(2, "QUOTA_EXCEEDED"), (4, "QUOTA_EXCEEDED")]
    assert await stored(installation, tenant) == 2


async def test_after_the_grace_the_quota_itself_is_the_end(
    installation, make_pipeline, make_events, real_time_clock
):
    limits = {"events_per_month": 10, "events_hard_percent": 300, "events_grace_hours": 1}
    tenant = await installation.provisioned_tenant(entitlements=limits)
    pipeline = make_pipeline()
    assert Outcome.REJECTED not in (await pipeline.run(tenant, "k", make_events(12), 1)).outcomes
    real_time_clock.advance(3601)
    later = await pipeline.run(tenant, "k", make_events(3, first=50), 1)
    assert later.outcomes == [Outcome.REJECTED] * 3


async def test_a_quota_that_is_raised_in_the_month_has_a_grace_of_its_own(
    installation, make_pipeline, make_events, real_time_clock
):
    tenant = await installation.provisioned_tenant(entitlements=limits(10, 200, 1))
    pipeline = make_pipeline()
    await pipeline.run(tenant, "k", make_events(12), 1)
    real_time_clock.advance(3601)
    raised = replace(tenant, entitlements=limits(20, 200, 1))
    usage = GetIngestUsage(
        tenancy=installation.tenancy("ingestion"), store=PostgresEventStore(0), clock=real_time_clock
    )
    _, count, _ = await usage.run(raised)
    assert (count.accepted, count.passed_at) == (12, None)
    later = await pipeline.run(raised, "k", make_events(10, first=50), 1)
    assert later.outcomes == [Outcome.ACCEPTED] * 10
    _, count, _ = await usage.run(raised)
    assert count.passed_at == real_time_clock.now()
    real_time_clock.advance(3601)
    assert (await pipeline.run(raised, "k", make_events(1, first=90), 1)).outcomes == [Outcome.REJECTED]


async def test_batches_beyond_the_quota_are_counted_by_stage(installation, make_pipeline, make_events):
    tenant = await installation.provisioned_tenant(entitlements=limits(10, 150, 24))
    registry = CollectorRegistry()
    pipeline = make_pipeline(registry=registry)
    for first, count in enumerate((10, 2, 2, 5)):
        await pipeline.run(tenant, "k", make_events(count, first=100 * first), 1)
    batches = {
        stage: registry.get_sample_value("tlsy_ingest_quota_batches_total", {"stage": stage})
        for stage in ("within", "grace", "exhausted")
    }
    assert batches == {"within": None, "grace": 2, "exhausted": 1}


class RefusesTheSecondTry(PostgresEventStore):
    tries = 0

    async def insert(self, tx, rows):
        self.tries += 1
        if self.tries == 2:
            raise RowsRefused("no")
        return await super().insert(tx, rows)

    async def refused(self, tx, rows):
        return [0]


async def test_a_batch_that_is_tried_again_is_counted_once_and_begins_the_grace(
    installation, make_pipeline, make_events
):
    tenant = await installation.provisioned_tenant(entitlements=limits(10, 150, 24))
    registry, store = CollectorRegistry(), RefusesTheSecondTry(0)
    pipeline = make_pipeline(registry=registry, store=store)
    await pipeline.run(tenant, "k", make_events(10), 1)
    await pipeline.run(tenant, "k", make_events(2, first=10), 1)
    assert store.tries == 3
    assert registry.get_sample_value("tlsy_ingest_quota_batches_total", {"stage": "grace"}) == 1
    assert await passed(installation, tenant) == 1


async def test_what_is_stored_already_needs_no_room(installation, make_pipeline, make_events):
    tenant = await installation.provisioned_tenant(entitlements=limits(10))
    pipeline, first = make_pipeline(), make_events(8)
    await pipeline.run(tenant, "k", first, 1)
    again = await pipeline.run(tenant, "k", first + make_events(3, first=100), 1)
    assert again.outcomes == [Outcome.DUPLICATE] * 8 + [Outcome.ACCEPTED] * 2 + [Outcome.REJECTED]
    assert await stored(installation, tenant) == 10


async def test_a_batch_that_comes_again_does_not_begin_the_grace(installation, make_pipeline, make_events):
    tenant = await installation.provisioned_tenant(entitlements=limits(10, 200, 1))
    pipeline, first = make_pipeline(), make_events(8)
    await pipeline.run(tenant, "k", first, 1)
    assert (await pipeline.run(tenant, "k", first, 1)).outcomes == [Outcome.DUPLICATE] * 8
    assert await passed(installation, tenant) == 0
    await pipeline.run(tenant, "k", make_events(3, first=100), 1)
    assert await passed(installation, tenant) == 1


async def test_batches_at_once_do_not_pass_the_end_together(installation, make_pipeline, make_events):
    tenant = await installation.provisioned_tenant(entitlements=limits(100))
    pipeline = make_pipeline()
    await pipeline.run(tenant, "k", make_events(1), 1)
    answers = await asyncio.gather(
        *(pipeline.run(tenant, "k", make_events(99, first=1_000 * n), 1) for n in range(1, 9))
    )
    accepted = sum(answer.outcomes.count(Outcome.ACCEPTED) for answer in answers)
    assert accepted == 99
    assert await stored(installation, tenant) == 100


async def test_what_a_failed_batch_held_is_free_again(installation, make_pipeline, make_events):
    tenant = await installation.provisioned_tenant(entitlements=limits(10))
    pipeline, holder = make_pipeline(), await installation.connect(None, installation.common)
    await pipeline.run(tenant, "k", make_events(1), 1)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("lock table shared.ingest_counts in access exclusive mode")
    running = asyncio.create_task(pipeline.run(tenant, "k", make_events(9, first=10), 1))
    waiting = "select pg_blocking_pids(pid) from pg_stat_activity where wait_event_type = 'Lock'"
    async with asyncio.timeout(60):
        while await holder.fetchval(waiting) is None:
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})
    await transaction.rollback()
    again = await pipeline.run(tenant, "k", make_events(9, first=50), 1)
    assert again.outcomes == [Outcome.ACCEPTED] * 9


async def test_a_running_replica_learns_what_another_counted(
    installation, make_pipeline, make_events, real_time_clock
):
    tenant = await installation.provisioned_tenant(entitlements=limits(10))
    one = make_pipeline(shard=0)
    other = make_pipeline(shard=1)
    await one.run(tenant, "k", make_events(1), 1)
    await other.run(tenant, "k", make_events(9, first=10), 1)
    real_time_clock.advance(REREAD_AFTER_S)
    later = await one.run(tenant, "k", make_events(2, first=50), 1)
    assert later.outcomes == [Outcome.REJECTED] * 2


class StoresMeanwhile(PostgresEventStore):
    meanwhile: Any = None

    async def read_month(self, tx, month, quota):
        run, self.meanwhile = self.meanwhile, None
        if run is not None:
            await run()
        return await super().read_month(tx, month, quota)


async def test_what_is_stored_while_the_count_is_read_is_counted_once(
    installation, make_pipeline, make_events, real_time_clock
):
    tenant = await installation.provisioned_tenant(entitlements=limits(10))
    store = StoresMeanwhile(0)
    pipeline = make_pipeline(store=store)
    await pipeline.run(tenant, "k", make_events(1), 1)
    real_time_clock.advance(REREAD_AFTER_S)
    store.meanwhile = partial(pipeline.run, tenant, "k", make_events(4, first=10), 1)
    later = await pipeline.run(tenant, "k", make_events(6, first=50), 1)
    assert later.outcomes == [Outcome.ACCEPTED] * 5 + [Outcome.REJECTED]
