"""What is measured, traced and logged of every call."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import grpc
from opentelemetry import context as otel_context
from opentelemetry.trace import SpanKind, Status, StatusCode, TraceFlags
from prometheus_client import Counter, Gauge, Histogram

from tlsy.rpc.errors import ServiceError
from tlsy.runtime.logging import get_logger, set_log_fields
from tlsy.runtime.telemetry import BoundedLabel
from tlsy.runtime.tracing import TRACEPARENT, begin_span, context_of, traceparent_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from tlsy.rpc.limits import InFlight
    from tlsy.rpc.methods import Method
    from tlsy.rpc.tokens import TokenClaims
    from tlsy.runtime.clock import Clock
    from tlsy.runtime.telemetry import Telemetry

CORRELATION_HEADER: Final = "x-request-id"
TRACE_HEADER: Final = "traceparent"
AUTHORIZATION_HEADER: Final = "authorization"

_CORRELATION: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_MAX_REASONS: Final = 100
_MAX_FAILURE_LINES_PER_S: Final = 50
_SAMPLE_SPACE: Final = 1 << 16
_RATIO_SPACE: Final = 1 << 32


class Observed:
    """One call while it is being answered.

    Attributes:
        recorded_by: the traceparent of a caller that records, until it is known whether it is followed.
        started: on the clock's `monotonic()`.
        authorization: the header as it came, "" without one.
        claims: whose call it is, once its token was found to be good, or good but for a revocation.
        correlation_id: the caller's, or a new one.
        traceparent: to hand on; "" where the trace is unknown.
        trace_id: 32 hex digits, or "".
    """

    __slots__ = (
        "authorization",
        "claims",
        "correlation_id",
        "method",
        "recorded_by",
        "sampled_line",
        "scope",
        "span",
        "started",
        "trace_id",
        "traceparent",
    )

    def __init__(self, method: Method, started: float) -> None:
        self.method = method
        self.started = started
        self.authorization = ""
        self.claims: TokenClaims | None = None
        self.correlation_id = ""
        self.recorded_by = ""
        self.traceparent = ""
        self.trace_id = ""
        self.sampled_line = False
        self.span: Span | None = None
        self.scope: Token[Context] | None = None


class CallObserver:
    """Observes calls of one server: a span if the trace is sampled, a histogram, and some log lines.

    Only services are followed in what they record: anybody can send a header. Of all others' calls the
    process records its own share.

    A line is written for a share of the good calls and for every failed one, of the latter at most 50 a
    second. Labels are bounded: methods are ours, codes are gRPC's, reasons are capped.
    """

    __slots__ = (
        "_clock",
        "_failure_lines",
        "_failure_second",
        "_log_ratio",
        "_logger",
        "_random",
        "_reason_label",
        "_record_below",
        "_refused",
        "_seconds",
        "_seconds_by",
        "_tracer",
    )

    def __init__(
        self,
        telemetry: Telemetry,
        clock: Clock,
        random: Callable[[int], bytes],
        in_flight: InFlight,
        *,
        log_ratio: float,
    ) -> None:
        self._tracer: Tracer = telemetry.tracer("tlsy.rpc")
        self._clock = clock
        self._random = random
        self._log_ratio = log_ratio
        self._record_below = telemetry.trace_ratio * _RATIO_SPACE
        self._logger = get_logger("rpc.server")
        self._failure_second = 0
        self._failure_lines = 0
        self._reason_label = BoundedLabel(_MAX_REASONS)
        registry = telemetry.registry
        self._seconds = Histogram(
            "tlsy_rpc_server_seconds",
            "Time to answer a call.",
            ("method", "code"),
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._seconds_by: dict[tuple[str, grpc.StatusCode], Histogram] = {}
        self._refused = Counter(
            "tlsy_rpc_server_refused", "Calls not answered with OK.", ("reason",), registry=registry
        )
        gauge = Gauge("tlsy_rpc_server_in_flight", "Being answered.", ("kind",), registry=registry)
        gauge.labels("call").set_function(lambda: in_flight.calls)
        gauge.labels("stream").set_function(lambda: in_flight.streams)

    def begin(self, method: Method, metadata: Iterable[tuple[str, str | bytes]]) -> Observed:
        """Read what the caller sent along, open a span if it is to be recorded, and set the log fields."""
        seen = Observed(method, self._clock.monotonic())
        parent = None
        for key, value in metadata:
            if key == AUTHORIZATION_HEADER:
                seen.authorization = str(value)
            elif key == TRACE_HEADER:
                parent = TRACEPARENT.fullmatch(str(value))
            elif key == CORRELATION_HEADER and _CORRELATION.fullmatch(str(value)):
                seen.correlation_id = str(value)
        entropy = self._random(8)
        if not seen.correlation_id:
            seen.correlation_id = entropy.hex()
        seen.sampled_line = int.from_bytes(entropy[:2], "big") < self._log_ratio * _SAMPLE_SPACE
        self._trace(seen, parent, int.from_bytes(entropy[2:6], "big"))
        set_log_fields({"trace_id": seen.trace_id, "request_id": seen.correlation_id})
        return seen

    def _trace(self, seen: Observed, parent: re.Match[str] | None, chance: int) -> None:
        """Go on with the caller's trace; the sampler decides on what begins here."""
        if parent is None:
            self._begin_span(seen, "")
            return
        seen.trace_id = parent.group(1)
        flags = int(parent.group(3), 16)
        seen.traceparent = f"{parent.group()[:-2]}{flags & ~TraceFlags.SAMPLED:02x}"
        if flags & TraceFlags.SAMPLED:
            seen.recorded_by = parent.group()
            if chance < self._record_below:
                self._begin_span(seen, seen.recorded_by)

    def _begin_span(self, seen: Observed, parent: str, start_time: int | None = None) -> None:
        seen.recorded_by = ""
        span = begin_span(self._tracer, seen.method.name, SpanKind.SERVER, parent, start_time)
        seen.traceparent = traceparent_of(span)
        seen.trace_id = seen.traceparent[3:35]
        if span.is_recording():
            seen.span = span
            seen.scope = otel_context.attach(context_of(span, self._tracer))

    def follow(self, seen: Observed) -> None:
        """Record the call if its caller, which has proved to be a service, records it."""
        if seen.recorded_by:
            elapsed_s = self._clock.monotonic() - seen.started
            began = self._clock.now().timestamp() - elapsed_s
            self._begin_span(seen, seen.recorded_by, int(began * 1e9))

    def identify(self, seen: Observed, tenant: str, principal: str) -> None:
        """Say from now on in every line, and on the span, who calls."""
        set_log_fields(
            {
                "trace_id": seen.trace_id,
                "request_id": seen.correlation_id,
                "tenant": tenant,
                "principal": principal,
            }
        )
        if seen.span is not None:
            seen.span.set_attribute("tlsy.tenant", tenant)
            seen.span.set_attribute("tlsy.principal", principal)
            seen.span.set_attribute("tlsy.request_id", seen.correlation_id)

    def end(
        self,
        seen: Observed,
        code: grpc.StatusCode,
        error: BaseException | None,
        defect: Exception | None = None,
    ) -> None:
        """Measure the call, close its span, write its line if it gets one.

        Args:
            seen: the call.
            code: its status.
            error: what was answered, where that is not OK.
            defect: what went wrong on our side; logged with its traceback.
        """
        elapsed_s = self._clock.monotonic() - seen.started
        key = (seen.method.name, code)
        series = self._seconds_by.get(key)
        if series is None:
            series = self._seconds_by[key] = self._seconds.labels(seen.method.name, code.name)
        series.observe(elapsed_s)
        reason = error.reason if isinstance(error, ServiceError) else code.name
        if code is not grpc.StatusCode.OK:
            self._refused.labels(self._reason_label(reason)).inc()
        if seen.span is not None:
            self._close_span(seen.span, seen.scope, code, reason)
        if code is grpc.StatusCode.OK:
            if seen.sampled_line:
                self._line("call answered", seen, code, elapsed_s, {})
        elif self._may_log_failure():
            if defect is not None:
                self._logger.error("call failed", method=seen.method.name, exc_info=defect)
            self._line("call refused", seen, code, elapsed_s, {"reason": reason})

    def _line(
        self,
        event: str,
        seen: Observed,
        code: grpc.StatusCode,
        elapsed_s: float,
        more: Mapping[str, str],
    ) -> None:
        self._logger.info(
            event, method=seen.method.name, code=code.name, elapsed_ms=round(elapsed_s * 1000, 2), **more
        )

    def _may_log_failure(self) -> bool:
        second = int(self._clock.monotonic())
        if second != self._failure_second:
            if self._failure_lines > _MAX_FAILURE_LINES_PER_S:
                left_out = self._failure_lines - _MAX_FAILURE_LINES_PER_S
                self._logger.warning("refused calls not logged", count=left_out)
            self._failure_second, self._failure_lines = second, 0
        self._failure_lines += 1
        return self._failure_lines <= _MAX_FAILURE_LINES_PER_S

    @staticmethod
    def _close_span(span: Span, scope: Token[Context] | None, code: grpc.StatusCode, reason: str) -> None:
        span.set_attribute("rpc.grpc.status_code", int(code.value[0]))
        if code is not grpc.StatusCode.OK:
            span.set_status(Status(StatusCode.ERROR, reason))
        span.end()
        if scope is not None:
            otel_context.detach(scope)
