"""What evaluation exports. No label is a tenant or a rule."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from tlsy.rules_engine.domain.turn import Counters


class RulesMetrics:
    """Made once per process and registry."""

    __slots__ = ("evaluation_s", "halted", "incidents", "left_out", "timers_lag_s")

    def __init__(self, registry: CollectorRegistry) -> None:
        self.left_out = Counter(
            "tlsy_rules_left_out",
            "What was not judged or not kept, by reason: late events, groups beyond a limit, …",
            ("reason",),
            registry=registry,
        )
        self.evaluation_s = Histogram(
            "tlsy_rules_evaluation_seconds", "Judging the events of one transaction.", registry=registry
        )
        self.incidents = Counter(
            "tlsy_rules_incidents", "Incidents by what became of them.", ("change",), registry=registry
        )
        self.halted = Counter(
            "tlsy_rules_halted", "Rules taken out of force because judging them failed.", registry=registry
        )
        self.timers_lag_s = Gauge(
            "tlsy_rules_timers_lag_seconds",
            "How long the most overdue tenant's timers have been due.",
            registry=registry,
        )

    def left_out_since(self, before: Counters, now: Counters) -> None:
        """Counts what an engine has left out meanwhile."""
        earlier = asdict(before)
        for reason, total in asdict(now).items():
            if total > earlier[reason]:
                self.left_out.labels(reason).inc(total - earlier[reason])
