"""A rule changed: whoever owns the tenant puts the live rules in force, also if no event comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.runtime.ids import TenantId

if TYPE_CHECKING:
    from tlsy.contracts.cloudevents import CloudEvent
    from tlsy.rules_engine.handlers.run_timers import RunTimers


class OnRuleChanged:
    """Takes the tail of the service's own topic, in every replica."""

    def __init__(self, timers: RunTimers) -> None:
        self._timers = timers

    def run(self, event: CloudEvent) -> None:
        """Only wakes the owner: what changed is read from the database."""
        self._timers.wake(TenantId(event.tenant_id))
