"""Who and what several events go back to that are handled as one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

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
