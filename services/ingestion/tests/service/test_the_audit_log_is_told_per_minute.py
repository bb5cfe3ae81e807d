from __future__ import annotations

import asyncio
import os
from datetime import timedelta

import pytest

from tlsy.contracts.audit_log.events.v1.events_pb2 import AuditRecorded
from tlsy.contracts.events import audit_recorded
from tlsy.ingestion.adapters.postgres.event_store import PostgresEventStore
from tlsy.ingestion.domain.untold import Untold
from tlsy.ingestion.handlers.tell_minutes import TellMinutes
from tlsy.runtime.ids import Uuid7
from tlsy.tenancy.context import IsolationMode


@pytest.fixture
def clock(real_time_clock):
    return real_time_clock


@pytest.fixture
def untold():
    return Untold()


@pytest.fixture
def make_tell(installation, clock):
    """As replicas have it that were given no shards: all on one."""

    def make(untold):
        return TellMinutes(
            tenancy=installation.tenancy("ingestion"),
            store=PostgresEventStore(0),
            clock=clock,
            ids=Uuid7(clock, os.urandom),
            untold=untold,
            everyone=tuple,
            every_s=0.05,
        )

    return make


@pytest.fixture
def tell(make_tell, untold):
    return make_tell(untold)


async def records(installation) -> list[AuditRecorded]:
    relay = await installation.connect("tlsy_relay", installation.common)
    kind = audit_recorded("ingestion")
    rows = await relay.fetch("select data from ingestion.outbox where type = $1 order by seq", kind)
    return [AuditRecorded.FromString(row["data"]) for row in rows]


def figures(record):
    names = ("accepted", "duplicates", "rejected", "deferred")
    return (record.count, *(record.details[name] for name in names))


async def test_a_minute_is_told_once_when_it_is_over_with_all_calls_of_the_principal(
    installation, make_pipeline, make_events, tell, clock
):
    tenant = await installation.provisioned_tenant()
    pipeline = make_pipeline(clock=clock)
    for first in (0, 10, 20):
        await pipeline.run(tenant, "tenants/a/apiKeys/1", make_events(5, first=first), 1)
    assert await tell.tell(tenant.tenant_id) == 0
    clock.advance(180)
    await tell.tell(tenant.tenant_id)
    await tell.tell(tenant.tenant_id)
    (record,) = await records(installation)
    assert (record.principal, record.count, record.details["accepted"]) == ("tenants/a/apiKeys/1", 3, 15)
    relay = await installation.connect("tlsy_relay", installation.common)
    told = "select tenant_id, epoch from ingestion.outbox where type = $1"
    (row,) = await relay.fetch(told, audit_recorded("ingestion"))
    assert (*row, record.tenant_id) == (tenant.tenant_id, tenant.epoch, str(tenant.tenant_id))


async def test_a_batch_that_was_counted_after_its_minute_was_told_is_told_too(
    installation, make_pipeline, make_events, tell, clock
):
    tenant = await installation.provisioned_tenant()
    behind, events = make_pipeline(clock=clock), make_events(3)
    await behind.run(tenant, "k", events[:1], 1)
    clock.advance(180)
    await tell.tell(tenant.tenant_id)
    clock.advance(-180)
    await behind.run(tenant, "k", [*events, *make_events(1, source="")], 1)
    clock.advance(180)
    await tell.tell(tenant.tenant_id)
    told = [figures(record) for record in await records(installation)]
    assert told == [(1, 1, 0, 0, 0), (1, 2, 1, 1, 0)]


async def test_two_replicas_on_one_shard_tell_each_of_their_calls_once(
    installation, make_pipeline, make_events, make_tell, clock
):
    tenant = await installation.provisioned_tenant(entitlements={"ingest_events_per_s": 1})
    books = [Untold(), Untold()]
    for number, untold in enumerate(books):
        pipeline = make_pipeline(clock=clock, untold=untold)
        for first in (0, 10, 20):
            await pipeline.run(tenant, "k", make_events(5, first=100 * number + first), 1)
    clock.advance(180)
    for untold in books:
        await make_tell(untold).tell(tenant.tenant_id)
    told = [figures(record) for record in await records(installation)]
    # What the second counted with its events the first found in their common row.
    assert told == [(4, 4, 0, 0, 16), (2, 0, 0, 0, 10)]


async def test_batches_that_were_deferred_as_a_whole_are_told_too(
    installation, make_pipeline, make_events, tell, untold, clock
):
    tenant = await installation.provisioned_tenant(entitlements={"ingest_events_per_s": 1})
    pipeline = make_pipeline(clock=clock, untold=untold)
    for first in (0, 10, 20):
        await pipeline.run(tenant, "k", make_events(5, first=first), 1)
    clock.advance(180)
    await tell.tell(tenant.tenant_id)
    (record,) = await records(installation)
    assert (record.count, record.details["accepted"], record.details["deferred"]) == (3, 2, 13)


async def test_only_those_with_something_to_tell_are_asked(
    installation, make_pipeline, make_events, tell, untold, clock
):
    tenant = await installation.provisioned_tenant()
    await make_pipeline(clock=clock, untold=untold).run(tenant, "k", make_events(5), 1)
    assert not untold.due(clock.now() - timedelta(minutes=2))
    clock.advance(180)
    assert untold.due(clock.now() - timedelta(minutes=2)) == {tenant.tenant_id}
    await tell.tell(tenant.tenant_id)
    assert not untold.due(clock.now())


async def test_a_tenant_that_was_deleted_is_asked_for_no_more(
    installation, make_pipeline, make_events, tell, untold, clock
):
    tenant = await installation.provisioned_tenant()
    await make_pipeline(clock=clock, untold=untold).run(tenant, "k", make_events(5), 1)
    untold.deferred(tenant.tenant_id, "k", 7, clock.now())
    installation.catalog.forget(tenant.tenant_id)
    clock.advance(180)
    stopping = asyncio.Event()
    running = asyncio.create_task(tell.run(stopping))
    async with asyncio.timeout(60):
        while untold.due(clock.now()):
            await asyncio.sleep(0.02)
    stopping.set()
    await running
    assert not untold.take_deferred(tenant.tenant_id)


async def test_a_database_that_fails_holds_up_no_other_tenant_and_forgets_nothing(
    installation, make_pipeline, make_events, tell, untold, clock
):
    broken = await installation.provisioned_tenant(IsolationMode.DEDICATED)
    other = await installation.provisioned_tenant()
    pipeline = make_pipeline(clock=clock, untold=untold)
    for tenant in (broken, other):
        await pipeline.run(tenant, "k", make_events(5), 1)
        untold.deferred(tenant.tenant_id, "k", 7, clock.now())
    owner = await installation.connect(None, broken.placement)
    await owner.execute(
        f"alter table {broken.placement.schema}.ingest_minutes rename column told to was_told"
    )
    clock.advance(180)
    stopping = asyncio.Event()
    running = asyncio.create_task(tell.run(stopping))
    async with asyncio.timeout(60):
        while not await records(installation):
            await asyncio.sleep(0.02)
    assert not running.done()
    stopping.set()
    await running
    assert untold.due(clock.now()) == {broken.tenant_id}
    assert [deferred.events for deferred in untold.take_deferred(broken.tenant_id).values()] == [7]
