"""Who and what an event goes back to, for whatever runs while it is handled: logs, what is published."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from tlsy.runtime.logging import reset_log_fields, set_log_fields
from tlsy.runtime.tracing import ORIGIN, trace_id_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tlsy.contracts.cloudevents import CloudEvent


def cause_of(events: Sequence[CloudEvent]) -> CloudEvent:
    """The first of some events of one tenant, with what is not true of all of them taken out."""
    first = events[0]
    principals = {event.principal for event in events}
    requests = {event.correlation_id for event in events}
    if len(principals) == len(requests) == 1:
        return first
    return replace(
        first,
        principal=first.principal if len(principals) == 1 else "",
        correlation_id=first.correlation_id if len(requests) == 1 else "",
    )


@contextmanager
def caused_by(event: CloudEvent) -> Iterator[None]:
    """Inside, log lines and what is published name the event's tenant, trace, principal and request."""
    fields = set_log_fields(
        {
            "tenant": str(event.tenant_id),
            "trace_id": trace_id_of(event.traceparent),
            "principal": event.principal,
            "request_id": event.correlation_id,
        }
    )
    origin = ORIGIN.set(event)
    try:
        yield
    finally:
        ORIGIN.reset(origin)
        reset_log_fields(fields)
