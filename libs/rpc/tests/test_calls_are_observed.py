from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from libs.rpc.tests.world import SERVICES, bearer, refused
from tlsy.contracts.identity.v1 import identity_pb2 as identity
from tlsy.contracts.identity.v1 import identity_pb2_grpc
from tlsy.contracts.ingestion.v1 import ingestion_pb2_grpc
from tlsy.contracts.ingestion.v1.ingestion_pb2 import TailEventsRequest
from tlsy.rpc.audit import AuditTrail
from tlsy.rpc.channel import dial, dial_bearer
from tlsy.rpc.errors import Unavailable
from tlsy.rpc.server import ServerLimits
from tlsy.runtime.logging import get_logger
from tlsy.runtime.telemetry import open_telemetry
from tlsy.runtime.tracing import ORIGIN, traceparent_of

REQUEST = identity.GetUserRequest(name="tenants/acme/users/u")
METHOD = "tlsy.identity.v1.IdentityService/GetUser"
STREAM = "tlsy.ingestion.v1.IngestionService/TailEvents"
LOG_IN = identity.LogInRequest(tenant="tenants/acme", email="a@b", password="x")
TRACE_ID, SPAN_ID = "a" * 32, "b" * 16


@pytest.fixture
def server_limits() -> ServerLimits:
    return ServerLimits(log_ratio=1.0)


@pytest.fixture
def spans(world, request) -> InMemorySpanExporter:
    """Everything recorded by the server; of what begins here nothing, unless a test asks for it."""
    exporter = InMemorySpanExporter()
    telemetry = open_telemetry("identity", trace_ratio=request.param if hasattr(request, "param") else 0.0)
    telemetry.traces.add_span_processor(SimpleSpanProcessor(exporter))
    world.host = replace(world.host, telemetry=telemetry)
    return exporter


async def test_a_call_is_measured_by_method_and_code(world, client):
    await client.identity.GetUser(REQUEST, metadata=bearer(world.token("client-admin")))
    await refused(client.identity.GetUser(REQUEST))
    sample = world.host.telemetry.registry.get_sample_value
    for code in ("OK", "UNAUTHENTICATED"):
        assert sample("tlsy_rpc_server_seconds_count", {"method": METHOD, "code": code}) == 1
    assert sample("tlsy_rpc_server_refused_total", {"reason": "TOKEN_MISSING"}) == 1
    assert sample("tlsy_rpc_server_in_flight", {"kind": "call"}) == 0


async def test_a_line_says_who_called_what(world, client, log_lines):
    metadata = (*bearer(world.token("client-admin")), ("x-request-id", "r-1"))
    await client.identity.GetUser(REQUEST, metadata=metadata)
    line = next(line for line in log_lines if line["event"] == "call answered")
    assert (line["method"], line["code"], line["tenant"]) == (METHOD, "OK", "acme")
    assert (line["principal"], line["request_id"]) == (world.claims().principal, "r-1")


async def test_a_line_says_who_was_refused(world, client, log_lines):
    await refused(client.identity.GetUser(REQUEST, metadata=bearer(world.token("viewer"))))
    line = next(line for line in log_lines if line["event"] == "call refused")
    assert line["reason"] == "PERMISSION_MISSING"
    assert (line["tenant"], line["principal"]) == ("acme", world.claims().principal)


async def test_a_line_says_whose_token_was_revoked(world, client, log_lines):
    claims = world.claims()
    world.deny_list.revoke(
        claims.tenant_id, claims.principal, revoked_at=claims.expires_at, expires_at=claims.expires_at
    )
    await refused(client.identity.GetUser(REQUEST, metadata=bearer(world.token("client-admin"))))
    line = next(line for line in log_lines if line["event"] == "call refused")
    assert line["reason"] == "TOKEN_REVOKED"
    assert (line["tenant"], line["principal"]) == ("acme", claims.principal)


async def test_a_token_is_in_no_line(world, client, log_lines):
    token = world.token("viewer")
    await refused(client.identity.GetUser(REQUEST, metadata=bearer(token)))
    text = log_lines.text
    assert "PERMISSION_MISSING" in text
    assert token not in text


async def test_a_flood_of_failures_does_not_flood_the_log(world, client, log_lines):
    for _ in range(300):
        await refused(client.identity.GetUser(REQUEST))
    refusals = [line for line in log_lines if line["event"] == "call refused"]
    seconds = {line["time"][:19] for line in refusals}
    assert len(refusals) <= 50 * (len(seconds) + 1)


@pytest.mark.parametrize("header", ["", "x" * 65, "a b"])
async def test_a_malformed_request_id_is_replaced(world, client, header):
    metadata = (*bearer(world.token("client-admin")), ("x-request-id", header))
    await client.identity.GetUser(REQUEST, metadata=metadata)
    assert world.identity.calls[0].correlation_id not in {"", header}


async def test_a_service_that_records_gets_a_span_below_its_own(world, spans, client):
    metadata = (
        *bearer(world.service_tokens().token_for("identity")),
        ("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01"),
    )
    current = []

    async def inside() -> None:
        current.append(trace.get_current_span().get_span_context().span_id)

    world.identity.act = inside
    await client.identity.ListRevocations(identity.ListRevocationsRequest(), metadata=metadata)
    (span,) = spans.get_finished_spans()
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE_ID, SPAN_ID)
    assert current == [span.context.span_id]
    assert world.identity.calls[0].traceparent == f"00-{TRACE_ID}-{span.context.span_id:016x}-01"
    assert span.attributes["tlsy.tenant"] == "platform"
    assert span.start_time < span.end_time


async def test_nobody_else_decides_what_is_recorded(world, spans, client):
    header = ("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01")
    for _ in range(20):
        await refused(client.identity.GetUser(REQUEST, metadata=(header,)))
        await client.identity.GetUser(REQUEST, metadata=(*bearer(world.token("client-admin")), header))
        await client.identity.LogIn(LOG_IN, metadata=(header,))
    assert spans.get_finished_spans() == ()
    assert {call.traceparent for call in world.identity.calls} == {f"00-{TRACE_ID}-{SPAN_ID}-00"}


@pytest.mark.parametrize("spans", [1.0], indirect=True)
async def test_of_their_traces_the_process_records_its_share(world, spans, client):
    metadata = (*bearer(world.token("client-admin")), ("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01"))
    await client.identity.GetUser(REQUEST, metadata=metadata)
    (span,) = spans.get_finished_spans()
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE_ID, SPAN_ID)


@pytest.mark.parametrize("spans", [1.0], indirect=True)
async def test_a_calls_transactions_and_events_are_in_its_trace(world, spans, client, installation):
    tenancy, tenant = installation.tenancy("ingestion"), await installation.provisioned_tenant()
    trail = AuditTrail("ingestion", world.clock, world.host.ids)

    async def inside() -> None:
        async with tenancy.transaction(tenant.context, write=True) as tx:
            tx.publish(trail.usage(tenant.tenant_id, tenant.epoch, "events.accepted", 1))

    world.identity.act = inside
    await client.identity.GetUser(REQUEST, metadata=bearer(world.token("client-admin")))
    transaction, server = spans.get_finished_spans()
    assert (transaction.kind, transaction.parent.span_id) == (SpanKind.CLIENT, server.context.span_id)
    owner = await installation.connect(None, tenant.placement)
    stored = await owner.fetchrow("select traceparent, principal, correlation_id from ingestion.outbox")
    (call,) = world.identity.calls
    assert tuple(stored) == (traceparent_of(transaction), world.claims().principal, call.correlation_id)
    assert server.attributes["tlsy.request_id"] == call.correlation_id


@pytest.mark.parametrize("spans", [1.0], indirect=True)
async def test_a_call_that_a_call_makes_is_below_it(world, spans, client):
    descriptor = SERVICES["identity"][0]

    async def inside() -> None:
        world.identity.act = None
        async with dial(world.host, descriptor, world.service_tokens()) as channel:
            peer = identity_pb2_grpc.IdentityServiceStub(channel)
            await peer.ListRevocations(identity.ListRevocationsRequest())

    world.identity.act = inside
    await client.identity.GetUser(REQUEST, metadata=bearer(world.token("client-admin")))
    answered, asked, first = spans.get_finished_spans()
    assert (asked.kind, asked.name) == (SpanKind.CLIENT, answered.name)
    assert (answered.parent.span_id, asked.parent.span_id) == (asked.context.span_id, first.context.span_id)


async def tail(world):
    async def token():
        return world.token("viewer")

    descriptor = SERVICES["ingestion"][0]
    async with dial_bearer(
        world.host.listen, descriptor, token, clock=world.clock, random=os.urandom
    ) as channel:
        stream = ingestion_pb2_grpc.IngestionServiceStub(channel).TailEvents(
            TailEventsRequest(parent="tenants/acme")
        )
        with suppress(grpc.aio.AioRpcError):
            async for _ in stream:
                pass


@pytest.mark.parametrize("spans", [1.0], indirect=True)
@pytest.mark.parametrize(("error", "code"), [(None, None), (Unavailable("AWAY", "x"), "UNAVAILABLE")])
async def test_a_stream_that_a_call_reads_is_below_it_and_as_long_as_it_lasts(
    world, spans, client, error, code
):
    ended = []

    async def act() -> None:
        ended.append([span.kind for span in spans.get_finished_spans()])
        if error is not None:
            raise error

    world.ingestion.act, world.identity.act = act, partial(tail, world)
    await client.identity.GetUser(REQUEST, metadata=bearer(world.token("client-admin")))
    async with asyncio.timeout(60):
        while len(spans.get_finished_spans()) < 3:
            await asyncio.sleep(0.01)
    by_kind = {(span.kind, span.name): span for span in spans.get_finished_spans()}
    above, asked = by_kind[SpanKind.SERVER, METHOD], by_kind[SpanKind.CLIENT, STREAM]
    assert asked.parent.span_id == above.context.span_id
    assert by_kind[SpanKind.SERVER, STREAM].parent.span_id == asked.context.span_id
    assert asked.status.description == code
    assert ended == [[]]


async def test_a_call_that_an_event_makes_has_the_events_request_id(world, client):
    event = SimpleNamespace(traceparent="", principal="users/1", correlation_id="r-1")
    token = ORIGIN.set(event)
    async with dial(world.host, SERVICES["identity"][0], world.service_tokens()) as channel:
        peer = identity_pb2_grpc.IdentityServiceStub(channel)
        await peer.ListRevocations(identity.ListRevocationsRequest())
    ORIGIN.reset(token)
    assert [call.correlation_id for call in world.identity.calls] == ["r-1"]


async def test_the_lines_of_a_call_have_its_trace(world, client, log_lines):
    async def inside() -> None:
        get_logger("shop").info("inside")

    world.identity.act = inside
    metadata = (*bearer(world.token("client-admin")), ("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-00"))
    await client.identity.GetUser(REQUEST, metadata=metadata)
    lines = [line for line in log_lines if line["event"] in {"inside", "call answered"}]
    assert [line["trace_id"] for line in lines] == [TRACE_ID] * 2


@pytest.mark.parametrize("spans", [1.0], indirect=True)
async def test_a_failed_calls_span_says_why(world, spans, client):
    metadata = (("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01"),)
    await refused(client.identity.GetUser(REQUEST, metadata=metadata))
    (span,) = spans.get_finished_spans()
    assert span.status.description == "TOKEN_MISSING"


async def test_an_unsampled_callers_trace_goes_on_without_a_span(world, spans, client):
    header = f"00-{TRACE_ID}-{SPAN_ID}-00"
    metadata = (*bearer(world.token("client-admin")), ("traceparent", header))
    await client.identity.GetUser(REQUEST, metadata=metadata)
    assert world.identity.calls[0].traceparent == header
    assert spans.get_finished_spans() == ()


@pytest.mark.parametrize("header", ["", "00-x", f"ff-{TRACE_ID}-{SPAN_ID}-01", f"00-{'0' * 32}-{SPAN_ID}-01"])
async def test_a_malformed_trace_is_not_followed(world, spans, client, header):
    metadata = (*bearer(world.token("client-admin")), ("traceparent", header))
    await client.identity.GetUser(REQUEST, metadata=metadata)
    assert world.identity.calls[0].trace_id not in {"", "0" * 32}
