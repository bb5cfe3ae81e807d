"""Traces, metrics and crash reports of one process.

Traces are sampled by ratio at the root and follow the caller's decision elsewhere; spans leave the process
only if an OTLP endpoint is set. Metrics live in a registry per process (never prometheus-client's global one)
and are served over HTTP only if a port is set. Crash reports go to Sentry only if a DSN is set.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.trace import Tracer

_FLUSH_MS: Final = 2000
_EXPORT_TIMEOUT_S: Final = 5


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a process lends for measuring itself.

    Attributes:
        traces: asked for tracers; one provider per process.
        registry: where every metric of the process is registered.
        closers: what `close` calls, last opened first.
    """

    traces: TracerProvider
    registry: CollectorRegistry
    closers: tuple[Callable[[], None], ...] = field(default=(), repr=False)

    def tracer(self, name: str) -> Tracer:
        """A tracer for one part of the program."""
        return self.traces.get_tracer(name)

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
    sentry_dsn: str | None = None,
) -> Telemetry:
    """Telemetry of the process named `process`.

    Args:
        process: e.g. "ingestion"; becomes `service.name`.
        trace_ratio: share of root traces that are recorded, 0 to 1. At 1 throughput halves.
        otlp_endpoint: "http://collector:4317" or "https://…"; None: spans are dropped.
        metrics_port: TCP port for GET /metrics; None: not served.
        sentry_dsn: where crash reports go; needs the extra `sentry`; None: nowhere.
    """
    traces = TracerProvider(
        resource=Resource.create({"service.name": process}), sampler=ParentBasedTraceIdRatio(trace_ratio)
    )
    if otlp_endpoint is not None:
        exporter = OTLPSpanExporter(endpoint=otlp_endpoint, timeout=_EXPORT_TIMEOUT_S)
        traces.add_span_processor(BatchSpanProcessor(exporter))
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    closers: list[Callable[[], None]] = []
    if metrics_port is not None:
        server, thread = start_http_server(metrics_port, registry=registry)
        closers += [thread.join, server.server_close, server.shutdown]
    if sentry_dsn is not None:
        # Imported here because it is an optional extra; OpenTelemetry keeps the tracing.
        importlib.import_module("sentry_sdk").init(
            dsn=sentry_dsn, traces_sample_rate=None, send_default_pii=False
        )
    return Telemetry(traces=traces, registry=registry, closers=tuple(closers))


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
