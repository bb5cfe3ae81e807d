"""Traces and metrics of one process.

Traces are sampled by ratio at the root and follow the caller's decision elsewhere; spans leave the process
only if an OTLP endpoint is set. Metrics live in a registry per service, never in prometheus-client's global
one, so that services that share a process do not take each other's names; the process serves them all,
labelled by service, and only if a port is set.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.trace import Tracer

_FLUSH_MS: Final = 2000
_EXPORT_TIMEOUT_S: Final = 5


class ServiceMetrics(Collector):
    """The metrics of several services as one: families of the same name are merged, told apart by a label."""

    def __init__(self) -> None:
        self._registries: dict[str, CollectorRegistry] = {}

    def registry_of(self, service: str) -> CollectorRegistry:
        """The registry of one service; the same one each time."""
        return self._registries.setdefault(service, CollectorRegistry())

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client's Collector."""
        merged: dict[str, Metric] = {}
        for service, registry in self._registries.items():
            for family in registry.collect():
                into = merged.get(family.name)
                if into is None:
                    into = merged[family.name] = Metric(family.name, family.documentation, family.type)
                for sample in family.samples:
                    into.samples.append(sample._replace(labels={**sample.labels, "service": service}))
        yield from merged.values()


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a process lends for measuring itself.

    Attributes:
        traces: asked for tracers; one provider per process.
        trace_ratio: the share of traces that begin here and are recorded.
        registry: where metrics are registered.
        services: the registries of the services in this process.
        closers: what `close` calls, last opened first.
    """

    traces: TracerProvider
    trace_ratio: float
    registry: CollectorRegistry
    services: ServiceMetrics
    closers: tuple[Callable[[], None], ...] = field(default=(), repr=False)

    def tracer(self, name: str) -> Tracer:
        """A tracer for one part of the program."""
        return self.traces.get_tracer(name)

    def for_service(self, service: str) -> Telemetry:
        """The same, with a registry of that service's own."""
        return replace(self, registry=self.services.registry_of(service))

    def close(self) -> None:
        """Send what is buffered (2 s at most) and stop serving metrics."""
        self.traces.force_flush(_FLUSH_MS)
        self.traces.shutdown()
        for closer in reversed(self.closers):
            closer()


def open_telemetry(
    process: str,
    *,
    trace_ratio: float = 0.0,
    otlp_endpoint: str | None = None,
    metrics_port: int | None = None,
) -> Telemetry:
    """Telemetry of the process named `process`.

    Args:
        process: e.g. "ingestion"; becomes `service.name`.
        trace_ratio: share of root traces that are recorded, 0 to 1. At 1 throughput halves.
        otlp_endpoint: "http://collector:4317" or "https://…"; None: spans are dropped.
        metrics_port: TCP port for GET /metrics; None: not served.
    """
    traces = TracerProvider(
        resource=Resource.create({"service.name": process}), sampler=ParentBasedTraceIdRatio(trace_ratio)
    )
    if otlp_endpoint is not None:
        # A third of what a process imports, for the few that send spans.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415 - slow to load
            OTLPSpanExporter,
        )

        exporter = OTLPSpanExporter(endpoint=otlp_endpoint, timeout=_EXPORT_TIMEOUT_S)
        traces.add_span_processor(BatchSpanProcessor(exporter))
    registry = CollectorRegistry()
    services = ServiceMetrics()
    registry.register(services)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    closers: list[Callable[[], None]] = []
    if metrics_port is not None:
        server, thread = start_http_server(metrics_port, registry=registry)
        closers += [thread.join, server.server_close, server.shutdown]
    return Telemetry(
        traces=traces,
        trace_ratio=trace_ratio,
        registry=registry,
        services=services,
        closers=tuple(closers),
    )


class BoundedLabel:
    """Keeps the number of values of a metric label bounded.

    The first `limit` different values pass; every later new one becomes "other". For labels whose values come
    from outside (tenants, event types): each would otherwise be a time series for ever.
    """

    __slots__ = ("_limit", "_seen")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        """`value`, or "other"."""
        if value in self._seen:
            return value
        if len(self._seen) >= self._limit:
            return "other"
        self._seen.add(value)
        return value
