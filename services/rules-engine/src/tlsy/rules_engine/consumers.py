"""Which events the rules engine takes, and who takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlsy.contracts.events import EVENTS_ACCEPTED, RULE_CHANGED, TOPICS
from tlsy.eventlog.delivery import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tlsy.contracts.cloudevents import CloudEvent
    from tlsy.eventlog.delivery import Route
    from tlsy.rules_engine.handlers.on_events_accepted import OnEventsAccepted
    from tlsy.rules_engine.handlers.on_rule_changed import OnRuleChanged

GROUP: Final = "rules-engine"
TOPIC: Final = TOPICS["ingestion"]
#: Records of up to 512 KiB that are judged in one transaction.
_BATCH: Final = 16


def routes(on_events_accepted: OnEventsAccepted) -> Mapping[str, Route]:
    """CloudEvents type to handler, in the group that shares the topic out among replicas."""
    return {EVENTS_ACCEPTED: Batch(on_events_accepted.run, limit=_BATCH)}


def tailed(on_rule_changed: OnRuleChanged) -> Mapping[str, Callable[[CloudEvent], None]]:
    """CloudEvents type to what takes it in every replica."""
    return {RULE_CHANGED: on_rule_changed.run}
