from __future__ import annotations

from dataclasses import replace

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from libs.rpc.tests.world import bearer, refused
from tlsy.contracts.identity.v1 import identity_pb2 as identity
from tlsy.rpc.server import ServerLimits
from tlsy.runtime.telemetry import open_telemetry

REQUEST = identity.GetUserRequest(name="tenants/acme/users/u")
METHOD = "tlsy.identity.v1.IdentityService/GetUser"
TRACE_ID, SPAN_ID = "a" * 32, "b" * 16


@pytest.fixture
def server_limits() -> ServerLimits:
    return ServerLimits(log_ratio=1.0)


@pytest.fixture
def spans(world) -> InMemorySpanExporter:
    """Everything recorded by the server, of roots that the sampler never takes."""
    exporter = InMemorySpanExporter()
    telemetry = open_telemetry("identity", trace_ratio=0.0)
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


async def test_a_token_is_in_no_line(world, client, log_lines):
    token = world.token("viewer")
    await refused(client.identity.GetUser(REQUEST, metadata=bearer(token)))
    text = log_lines.stream.getvalue()
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


async def test_a_sampled_caller_gets_a_span_below_its_own(world, spans, client):
    metadata = (
        *bearer(world.token("client-admin")),
        ("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01"),
    )
    current = []

    async def inside() -> None:
        current.append(trace.get_current_span().get_span_context().span_id)

    world.identity.act = inside
    await client.identity.GetUser(REQUEST, metadata=metadata)
    (span,) = spans.get_finished_spans()
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE_ID, SPAN_ID)
    assert current == [span.context.span_id]
    assert world.identity.calls[0].traceparent == f"00-{TRACE_ID}-{span.context.span_id:016x}-01"
    assert span.attributes["tlsy.tenant"] == "acme"


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
