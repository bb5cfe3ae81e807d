from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
from tlsy.contracts.ingestion.v1.encoded_pb2 import EncodedRequest
from tlsy.rpc.errors import ServiceError
from tlsy.tenancy.context import IsolationMode

SERVICE = pb.DESCRIPTOR.services_by_name["IngestionService"]
MODULES = frozenset({"supervision"})


def at(event, seconds=0):
    stamp = Timestamp()
    stamp.FromMicroseconds(event.time_us + seconds * 1_000_000)
    return stamp


@pytest.mark.parametrize("mode", list(IsolationMode))
async def test_events_come_back_as_they_were_sent_page_by_page(world, make_events, mode):
    tenant = await world.installation.provisioned_tenant(mode, modules=MODULES)
    stub = world.stub(await world.replica(), tenant, "agent", "viewer")
    parent = f"tenants/{tenant.slug}"
    sent = make_events(25, data=b'{"a": 1}', severity=4)
    answer = await stub.IngestEvents(pb.IngestEventsRequest(parent=parent, events=sent))
    assert list(answer.outcomes) == [pb.OUTCOME_ACCEPTED] * 25
    request = pb.QueryEventsRequest(
        parent=parent, start_time=at(sent[0]), end_time=at(sent[-1], 1), page_size=10
    )
    found: list[pb.Event] = []
    pages = 0
    while True:
        page = await stub.QueryEvents(request)
        found, pages = found + list(page.events), pages + 1
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert pages == 3
    assert found == sent[::-1]


async def test_a_tail_shows_what_another_replica_stores_and_only_what_is_wanted(world, make_events):
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    other = await world.installation.provisioned_tenant(modules=MODULES)
    first, second = await world.replica(), await world.replica()
    reader = world.stub(first, tenant, "viewer")
    tail = reader.TailEvents(pb.TailEventsRequest(parent=f"tenants/{tenant.slug}", type="host.disk"))
    await tail.read()
    for owner, type_ in ((other, "host.disk"), (tenant, "host.cpu"), (tenant, "host.disk")):
        events = make_events(2, type=type_, source=f"of-{owner.slug}")
        request = pb.IngestEventsRequest(parent=f"tenants/{owner.slug}", events=events)
        await world.stub(second, owner, "agent").IngestEvents(request)
    async with asyncio.timeout(60):
        told = await tail.read()
    assert {(e.source, e.type) for e in told.events} == {(f"of-{tenant.slug}", "host.disk")}
    tail.cancel()


@pytest.mark.parametrize(
    ("roles", "modules", "parent", "reason"),
    [
        (("viewer",), MODULES, "tenants/{slug}", "PERMISSION_MISSING"),
        (("agent",), frozenset(), "tenants/{slug}", "MODULE_DISABLED"),
        (("agent",), MODULES, "tenants/somebody-else", "CROSS_TENANT"),
    ],
)
async def test_a_call_that_is_not_allowed_stores_nothing(world, make_events, roles, modules, parent, reason):
    tenant = await world.installation.provisioned_tenant(modules=modules)
    stub = world.stub(await world.replica(), tenant, *roles)
    request = pb.IngestEventsRequest(parent=parent.format(slug=tenant.slug), events=make_events(1))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.IngestEvents(request)
    assert ServiceError.from_rpc_error(caught.value).reason == reason
    async with world.installation.tenancy("ingestion").transaction(tenant.context, write=False) as tx:
        assert await tx.fetchval("select count(*) from events") == 0


async def test_an_event_that_is_too_much_is_refused_unread_and_the_others_are_stored(world, make_events):
    """What nobody can read in it shows that nobody does, from the wire to the answer."""
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    host = await world.replica()
    channel = world.around.dial(host, SERVICE, world.around.token(tenant, "agent"))
    ingest = channel.unary_unary(
        "/tlsy.ingestion.v1.IngestionService/IngestEvents",
        response_deserializer=pb.IngestEventsResponse.FromString,
    )
    labels = {str(number): "" for number in range(32)}
    good = [event.SerializeToString() for event in make_events(3, labels=labels)]
    unreadable = b"\x4a\x03\x0a\x01\xff"
    hostile = [good[0], good[1] + unreadable, b"\xff" * 40_000, good[2]]
    request = EncodedRequest(parent=f"tenants/{tenant.slug}", events=hostile).SerializeToString()
    answer = await ingest(request)
    assert list(answer.outcomes) == [
        pb.OUTCOME_ACCEPTED, pb.OUTCOME_REJECTED, pb.OUTCOME_REJECTED, pb.OUTCOME_ACCEPTED
    ]  # fmt: skip
    assert [problem.reason for problem in answer.rejections] == ["LABELS_TOO_MANY", "EVENT_TOO_LARGE"]


async def test_a_page_token_of_another_query_is_refused(world, make_events):
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    stub = world.stub(await world.replica(), tenant, "agent", "viewer")
    parent, sent = f"tenants/{tenant.slug}", make_events(3)
    await stub.IngestEvents(pb.IngestEventsRequest(parent=parent, events=sent))
    request = pb.QueryEventsRequest(
        parent=parent, start_time=at(sent[0]), end_time=at(sent[-1], 1), page_size=1
    )
    request.page_token = (await stub.QueryEvents(request)).next_page_token
    request.type = "host.disk"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.QueryEvents(request)
    assert ServiceError.from_rpc_error(caught.value).violations[0].reason == "PAGE_TOKEN_MISMATCH"
