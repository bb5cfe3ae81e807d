"""What is counted of batches. Labels are outcomes, reasons and stages; never a tenant or a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client import CollectorRegistry

    from tlsy.ingestion.domain.events import Problem
    from tlsy.ingestion.ports import Tally


class PrometheusBatches:
    """See `tlsy.ingestion.ports.BatchObserver`; one per process and registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        events = Counter(
            "tlsy_ingest_events", "Events, by what became of them.", ("outcome",), registry=registry
        )
        self._accepted = events.labels("accepted")
        self._duplicates = events.labels("duplicate")
        self._rejected = events.labels("rejected")
        self._deferred = events.labels("deferred")
        self._problems = Counter(
            "tlsy_ingest_problems", "What was wrong with rejected events.", ("reason",), registry=registry
        )
        self._stages = Counter(
            "tlsy_ingest_quota_batches", "Batches beyond the month's quota.", ("stage",), registry=registry
        )
        self._late = Counter(
            "tlsy_ingest_late", "Events that came later than rules wait by default.", registry=registry
        )
        self._retimed = Counter(
            "tlsy_ingest_retimed",
            "Events whose source and id came before with another time.",
            registry=registry,
        )

    def ingested(self, tally: Tally, problems: Sequence[Problem], *, late: int, retimed: int) -> None:
        """See the port."""
        self._accepted.inc(tally.accepted)
        self._duplicates.inc(tally.duplicates)
        self._rejected.inc(tally.rejected)
        self._deferred.inc(tally.deferred)
        self._late.inc(late)
        self._retimed.inc(retimed)
        for problem in problems:
            self._problems.labels(problem.reason).inc()

    def passed_quota(self, stage: str) -> None:
        """See the port."""
        self._stages.labels(stage).inc()
