from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from prometheus_client import CollectorRegistry

from libs.eventlog.tests.world import note_down
from tlsy.contracts.events import EVENTS_ACCEPTED
from tlsy.eventlog.delivery import Each
from tlsy.eventlog.metrics import EventLogMetrics
from tlsy.runtime.logging import get_logger
from tlsy.runtime.telemetry import open_telemetry
from tlsy.runtime.tracing import ORIGIN, begin_span, context_of, current_traceparent

UNRECORDED = f"00-{'a' * 32}-{'b' * 16}-00"


class Unrecorded:
    traceparent = UNRECORDED
    principal = "users/1"
    correlation_id = "r-1"


@pytest.fixture
def spans(world):
    exporter = InMemorySpanExporter()
    telemetry = open_telemetry("suite", trace_ratio=1.0)
    telemetry.traces.add_span_processor(SimpleSpanProcessor(exporter))
    world.metrics = EventLogMetrics(CollectorRegistry(), telemetry.tracer("tlsy.eventlog"))
    return exporter


@pytest.fixture
def handed_on():
    return []


@pytest.fixture
async def consumer(world, spans, handed_on):
    async def handle(delivery, tx):
        handed_on.append(current_traceparent())
        get_logger("shop").info("noting")
        await note_down(delivery, tx)

    await world.relaying()
    return await world.consuming({EVENTS_ACCEPTED: Each(handle)})


async def test_what_a_call_publishes_is_applied_in_its_trace(
    world, spans, consumer, tenant, log_lines, handed_on
):
    tracer = world.metrics.tracer
    server = begin_span(tracer, "IngestEvents", SpanKind.SERVER, "")
    token = otel_context.attach(context_of(server, tracer))
    await world.publish(tenant, "a")
    otel_context.detach(token)
    server.end()
    await world.noted(tenant, "a")
    async with asyncio.timeout(60):
        while len(found := spans.get_finished_spans()) < 5:
            await asyncio.sleep(0.01)
    by_kind = {(span.kind.name, span.name): span for span in found if span.name != "transaction"}
    chain = [
        by_kind["SERVER", "IngestEvents"],
        next(span for span in found if span.name == "transaction"),
        by_kind["PRODUCER", EVENTS_ACCEPTED],
        by_kind["CONSUMER", EVENTS_ACCEPTED],
    ]
    for above, below in pairwise(chain):
        assert below.parent.span_id == above.context.span_id
    assert chain[3].attributes["tlsy.principal"] == "services/ingestion"
    assert {span.context.trace_id for span in found} == {server.get_span_context().trace_id}
    (noting,) = log_lines.of("noting")
    assert noting["trace_id"] == f"{server.get_span_context().trace_id:032x}"
    assert handed_on[0][3:35] == noting["trace_id"]


async def test_a_trace_that_nobody_records_goes_on_without_spans(
    world, spans, consumer, tenant, log_lines, handed_on
):
    token = ORIGIN.set(Unrecorded())
    await world.publish(tenant, "a")
    ORIGIN.reset(token)
    await world.noted(tenant, "a")
    assert handed_on == [UNRECORDED]
    assert [line["trace_id"] for line in log_lines.of("noting")] == ["a" * 32]
    assert spans.get_finished_spans() == ()
