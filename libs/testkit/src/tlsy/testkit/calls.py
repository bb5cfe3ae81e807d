"""Calls as handlers meet them, where no server lets one in."""

from __future__ import annotations

from tlsy.rpc.call import Call


def public_call(method: str) -> Call:
    """A call as the interceptor lets it in without a token."""
    return Call(
        method=method,
        tenant=None,
        claims=None,
        permissions=frozenset(),
        request_id=None,
        request_hash=b"",
        correlation_id="",
        traceparent="",
        trace_id="",
        deadline=0.0,
        peer="",
    )
