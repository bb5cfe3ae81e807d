from __future__ import annotations

import os

import pytest

from tlsy.contracts.audit_log.events.v1.events_pb2 import AuditRecorded
from tlsy.contracts.events import audit_recorded
from tlsy.ingestion.adapters.postgres.event_store import PostgresEventStore
from tlsy.ingestion.handlers.tell_minutes import TellMinutes
from tlsy.runtime.clock import SystemClock
from tlsy.runtime.ids import Uuid7


@pytest.fixture
def clock(fake_clock):
    fake_clock.advance((SystemClock().now() - fake_clock.now()).total_seconds())
    return fake_clock


@pytest.fixture
def tell(installation, clock):
    return TellMinutes(
        tenancy=installation.tenancy("ingestion"),
        store=PostgresEventStore(0),
        clock=clock,
        ids=Uuid7(clock, os.urandom),
        touched=tuple,
        everyone=tuple,
        every_s=1.0,
    )


async def records(installation) -> list[AuditRecorded]:
    relay = await installation.connect("tlsy_relay", installation.common)
    kind = audit_recorded("ingestion")
    rows = await relay.fetch("select data from ingestion.outbox where type = $1 order by seq", kind)
    return [AuditRecorded.FromString(row["data"]) for row in rows]


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


async def test_a_batch_that_was_counted_after_its_minute_was_told_is_told_too(
    installation, make_pipeline, make_events, tell, clock
):
    tenant = await installation.provisioned_tenant()
    behind = make_pipeline(clock=clock)
    await behind.run(tenant, "k", make_events(1), 1)
    clock.advance(180)
    await tell.tell(tenant.tenant_id)
    clock.advance(-180)
    await behind.run(tenant, "k", make_events(1, first=9), 1)
    clock.advance(180)
    await tell.tell(tenant.tenant_id)
    assert [record.count for record in await records(installation)] == [1, 1]
