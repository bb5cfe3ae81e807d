from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from libs.rpc.tests.world import ALICE, OTHER, bearer, refused
from tlsy.contracts.audit_log.events.v1.events_pb2 import AuditRecorded
from tlsy.contracts.identity.v1 import identity_pb2 as identity
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as ingestion
from tlsy.rpc.audit import AuditTrail
from tlsy.rpc.crossings import RecordedCrossings
from tlsy.rpc.errors import Unavailable
from tlsy.rpc.tokens import Actor
from tlsy.runtime.clock import SystemClock
from tlsy.testkit.calls import public_call

USER = "tenants/acme/users/u"
TAIL = ingestion.TailEventsRequest(parent="tenants/acme")
GET = identity.GetUserRequest(name=USER)


@pytest.fixture
def foreign(world):
    """A token of a head office's administrator in its subsidiary, as metadata."""
    return bearer(world.token("client-admin", actor=Actor(OTHER, ALICE)))


async def test_what_somebody_of_another_tenant_read_is_told(world, client, foreign):
    await client.identity.GetUser(GET, metadata=foreign)
    assert world.crossings.reads == [("GetUser", USER)]


async def test_what_a_tenant_s_own_people_read_is_not(world, client):
    await client.identity.GetUser(GET, metadata=bearer(world.token("client-admin")))
    assert world.crossings.reads == []


async def test_what_its_own_effect_tells_of_is_not_told_twice(world, client, foreign):
    request = identity.CreateUserRequest(parent="tenants/acme", user=identity.User(email="a@b.example"))
    await client.identity.CreateUser(request, metadata=foreign)
    assert world.crossings.reads == []


async def test_what_is_refused_was_not_read(world, client, foreign):
    async def refuse():
        raise Unavailable("AWAY", "is away")

    world.identity.act = refuse
    await refused(client.identity.GetUser(GET, metadata=foreign))
    assert world.crossings.reads == []


async def test_what_cannot_be_told_of_is_not_answered(world, client, foreign):
    world.crossings.away = Unavailable("PLACEMENT_UNAVAILABLE", "is away")
    error = await refused(client.identity.GetUser(GET, metadata=foreign))
    assert error.reason == "PLACEMENT_UNAVAILABLE"


async def test_a_stream_is_told_of_before_its_first_message(world, client, foreign):
    stream = client.ingestion.TailEvents(TAIL, metadata=foreign)
    assert (await stream.read()).missed == 1
    assert world.crossings.reads == [("TailEvents", TAIL.parent)]
    world.crossings.away = Unavailable("PLACEMENT_UNAVAILABLE", "is away")
    began = []
    world.ingestion.begin = lambda: began.append(1)
    error = await refused(client.ingestion.TailEvents(TAIL, metadata=foreign).read())
    assert (error.reason, began) == ("PLACEMENT_UNAVAILABLE", [])


async def test_a_stream_that_waits_for_its_record_ends_with_its_server(world, client, foreign, server):
    world.crossings.hold = asyncio.Event()
    stream = client.ingestion.TailEvents(TAIL, metadata=foreign)
    async with asyncio.timeout(30):
        await stream.initial_metadata()
        await server.stop(60)
        assert (await refused(stream.read())).reason == "SERVER_STOPPING"


async def test_the_record_says_who_of_which_tenant_read_what(world, database_templates):
    async with database_templates.installation() as installation:
        tenant = await installation.provisioned_tenant()
        trail = AuditTrail("ingestion", SystemClock(), world.host.ids)
        call = replace(
            public_call("tlsy.ingestion.v1.IngestionService/QueryEvents"),
            tenant=tenant,
            claims=world.claims(tenant_id=tenant.tenant_id, actor=Actor(OTHER, ALICE)),
            correlation_id="c-1",
        )
        await RecordedCrossings(installation.tenancy("ingestion"), trail).crossed(call, "tenants/acme")
        administrator = await installation.connect(None, installation.control)
        rows = await administrator.fetch("select tenant_id, data from ingestion.outbox")
        (row,) = [row for row in rows if row["tenant_id"] == tenant.tenant_id]
    record = AuditRecorded.FromString(row["data"])
    assert (record.tenant_id, record.principal_tenant_id) == (str(tenant.tenant_id), str(OTHER))
    assert (record.principal, record.resource, record.outcome) == (ALICE, "tenants/acme", "OK")
    assert (record.method, record.request_id) == (call.method, "c-1")
