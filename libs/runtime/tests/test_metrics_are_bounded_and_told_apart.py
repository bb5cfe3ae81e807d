from __future__ import annotations

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import Counter, generate_latest

from tlsy.runtime.telemetry import BoundedLabel, open_telemetry


def test_services_of_one_process_have_metrics_of_one_name():
    process = open_telemetry("suite")
    for service, count in (("identity", 1), ("ingestion", 2)):
        telemetry = process.for_service(service)
        Counter("calls", "Calls.", registry=telemetry.registry).inc(count)
    text = generate_latest(process.registry).decode()
    assert text.count("# TYPE calls_total counter") == 1
    assert 'calls_total{service="identity"} 1.0' in text
    assert 'calls_total{service="ingestion"} 2.0' in text


def test_a_services_registry_is_the_same_each_time():
    process = open_telemetry("suite")
    assert process.for_service("a").registry is process.for_service("a").registry


def test_a_label_has_a_bounded_number_of_values():
    label = BoundedLabel(2)
    assert [label(value) for value in ("a", "b", "c", "a", "d")] == ["a", "b", "other", "a", "other"]


def test_traces_are_sampled_by_ratio():
    for ratio, expected in ((0.0, 0), (1.0, 20)):
        exporter = InMemorySpanExporter()
        telemetry = open_telemetry("x", trace_ratio=ratio)
        telemetry.traces.add_span_processor(SimpleSpanProcessor(exporter))
        for _ in range(20):
            telemetry.tracer("t").start_span("s").end()
        assert len(exporter.get_finished_spans()) == expected
        telemetry.close()


def test_spans_leave_the_process_only_if_someone_says_where_to():
    assert open_telemetry("x").traces._active_span_processor._span_processors == ()
