"""What runs because of a call, an event or an operation names who and what that goes back to."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tlsy.runtime.logging import reset_log_fields, set_log_fields
from tlsy.runtime.tracing import ORIGIN, trace_id_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from tlsy.runtime.tracing import Origin


@contextmanager
def caused_by(origin: Origin, tenant_id: UUID) -> Iterator[None]:
    """Inside, log lines and what is published name the tenant, and the trace, principal and request."""
    fields = set_log_fields(
        {
            "tenant": str(tenant_id),
            "trace_id": trace_id_of(origin.traceparent),
            "principal": origin.principal or "",
            "request_id": origin.correlation_id,
        }
    )
    before = ORIGIN.set(origin)
    try:
        yield
    finally:
        ORIGIN.reset(before)
        reset_log_fields(fields)
