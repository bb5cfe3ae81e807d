"""Where what runs now comes from, handed on with every call and event, and the spans below it.

A span is only begun where its parent is recorded; all the others cost a look at a context variable.
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from contextvars import Token
    from types import TracebackType

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

_TRACER: Final = otel_context.create_key("tlsy-tracer")
_PARTS: Final = 4
_ODD: Final = frozenset("13579bdf")
#: W3C: trace id, id of the span above, flags, of which the lowest says that it is recorded.
TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


class Origin(Protocol):
    """What a call or an event tells of where it comes from."""

    @property
    def traceparent(self) -> str:
        """W3C; "" where nothing is traced."""
        ...

    @property
    def principal(self) -> str | None:
        """Who caused it; None or "" where nobody is known."""
        ...

    @property
    def correlation_id(self) -> str:
        """Of the request that it goes back to; "" where there is none."""
        ...


#: Set for the task that answers a call, applies an event or carries out an operation; by nothing else.
ORIGIN: Final[ContextVar[Origin]] = ContextVar("tlsy_origin")


def current_traceparent() -> str:
    """What is handed on from here; "" where nothing is traced."""
    if _tracer() is not None:
        return traceparent_of(trace.get_current_span())
    origin = ORIGIN.get(None)
    return "" if origin is None else origin.traceparent


def traceparent_of(span: Span) -> str:
    """The W3C header that names the span."""
    own = span.get_span_context()
    return f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"


def trace_id_of(traceparent: str) -> str:
    """32 hex digits, or "" of what is no traceparent."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) == _PARTS else ""


def is_recorded(traceparent: str) -> bool:
    """Whether whoever handed it on records the trace."""
    return traceparent[-1:] in _ODD and TRACEPARENT.fullmatch(traceparent) is not None


def failed(span: Span, why: str) -> None:
    """Mark the span as failed."""
    span.set_status(Status(StatusCode.ERROR, why))


def begin_span(tracer: Tracer, name: str, kind: SpanKind, parent: str, start_time: int | None = None) -> Span:
    """A span for who ends it somewhere else.

    Args:
        tracer: of who begins it.
        name: of the span.
        kind: of the span.
        parent: a traceparent that is recorded, or "": then the sampler decides.
        start_time: Unix time in ns, if it is not now.
    """
    inherited = otel_context.Context()
    if parent:
        _, trace_id, span_id, _ = parent.split("-")
        remote = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(1))
        inherited = trace.set_span_in_context(NonRecordingSpan(remote), inherited)
    return tracer.start_span(name, context=inherited, kind=kind, start_time=start_time)


def context_of(span: Span, tracer: Tracer) -> Context:
    """The context in which a recorded span is current; what is begun below it is the tracer's."""
    return trace.set_span_in_context(span, otel_context.set_value(_TRACER, tracer, otel_context.Context()))


def span_below(name: str, *, stays_open: bool = False) -> AbstractContextManager[Span | None]:
    """A span of asking another process, below the current one, if that is recorded.

    `stays_open`: for who ends it somewhere else, unless the block raises.
    """
    tracer = _tracer()
    if tracer is None:
        return _NO_SPAN
    return _Current(tracer.start_span(name, kind=SpanKind.CLIENT), tracer, stays_open=stays_open)


def span_after(
    tracer: Tracer | None, name: str, kind: SpanKind, traceparent: str
) -> AbstractContextManager[Span | None]:
    """A span that goes on with the trace that an event brought, if that is recorded."""
    if tracer is None or not is_recorded(traceparent):
        return _NO_SPAN
    return _Current(begin_span(tracer, name, kind, traceparent), tracer)


class _Current:
    """Makes a span the current one, and ends it."""

    __slots__ = ("_span", "_stays_open", "_token", "_tracer")

    def __init__(self, span: Span, tracer: Tracer, *, stays_open: bool = False) -> None:
        self._span = span
        self._tracer = tracer
        self._stays_open = stays_open
        self._token: Token[Context] | None = None

    def __enter__(self) -> Span:
        self._token = otel_context.attach(context_of(self._span, self._tracer))
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._token is not None:
            otel_context.detach(self._token)
        if kind is not None:
            # Not its text, which may say what a tenant wrote.
            failed(self._span, kind.__name__)
        if kind is not None or not self._stays_open:
            self._span.end()


_NO_SPAN: Final[AbstractContextManager[None]] = nullcontext()


def _tracer() -> Tracer | None:
    """Of the span that is current, if it is recorded."""
    tracer: Tracer | None = otel_context.get_value(_TRACER)  # type: ignore[assignment]  # begin_span's key
    return tracer
