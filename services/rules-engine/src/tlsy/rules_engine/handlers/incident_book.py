"""From the engine's transitions to incidents, for the transitions of one transaction.

Groups that share a dedup key share an incident: the first that fires opens it, the last that stops resolves
it. Pure: what is stored is given, what is to be stored is asked for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tlsy.rules_engine.domain import incident as life
from tlsy.rules_engine.domain.incident import IllegalTransition, IncidentId
from tlsy.rules_engine.ports import Refreshed, StoredIncident

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from uuid import UUID

    from tlsy.rules_engine.domain.ast import Rule
    from tlsy.rules_engine.domain.incident import DedupKey, Incident, ReopenPolicy
    from tlsy.rules_engine.domain.turn import Transition

_RULE: Final = "rule"


class IncidentBook:
    """What becomes of the incidents of some dedup keys; `current` has the stored one of each that has any."""

    def __init__(
        self, current: Mapping[DedupKey, StoredIncident], policy: ReopenPolicy, new_id: Callable[[], UUID]
    ) -> None:
        self._current = dict(current)
        self._policy = policy
        self._new_id = new_id
        self._changed: dict[IncidentId, StoredIncident] = {}
        self._told: list[tuple[StoredIncident, str]] = []
        self.opened = 0

    def changed(self) -> Sequence[StoredIncident]:
        """What is to be stored, in the order in which it first changed."""
        return list(self._changed.values())

    def told(self) -> Sequence[tuple[StoredIncident, str]]:
        """What others are to hear: the incident as it was then, and "opened" or "resolved"."""
        return self._told

    def refresh(self, key: DedupKey, refreshed: Refreshed) -> None:
        """The rule fired again before what is applied next."""
        stored = self._current.get(key)
        if stored is None:
            return
        incident = life.refresh(stored.incident, refreshed.at_us)
        if not isinstance(incident, IllegalTransition):
            self._keep(replace(stored, incident=incident, occurrences=stored.occurrences + refreshed.times))

    def open(self, key: DedupKey, rule: Rule, transition: Transition) -> None:
        """A group began to fire."""
        stored = self._current.get(key)
        if stored is None:
            self._open_new(rule, transition)
            return
        again = life.refresh(stored.incident, transition.at_us)
        if not isinstance(again, IllegalTransition):
            groups = stored.firing_groups + 1
            self._keep(
                replace(stored, incident=again, occurrences=stored.occurrences + 1, firing_groups=groups)
            )
            return
        reopened = life.reopen(stored.incident, transition, self._policy)
        if isinstance(reopened, IllegalTransition):
            self._open_new(rule, transition)
            return
        self._tell(
            replace(
                stored,
                incident=reopened,
                occurrences=stored.occurrences + 1,
                firing_groups=1,
                clear_pending=False,
                revision=stored.revision + 1,
            ),
            "opened",
        )

    def resolve(self, key: DedupKey, transition: Transition) -> None:
        """A group stopped to fire. Of an incident that an operator resolved there is nothing left to do."""
        stored = self._current.get(key)
        if stored is None:
            return
        groups = max(stored.firing_groups - 1, 0)
        if groups:
            self._keep(replace(stored, firing_groups=groups))
            return
        resolved = life.resolve(stored.incident, _RULE, transition.at_us, transition.reason)
        if isinstance(resolved, IllegalTransition):
            return
        self._tell(
            replace(stored, incident=resolved, firing_groups=0, revision=stored.revision + 1), "resolved"
        )

    def _open_new(self, rule: Rule, transition: Transition) -> None:
        incident: Incident = life.open_incident(IncidentId(str(self._new_id())), rule, transition)
        self.opened += 1
        stored = StoredIncident(
            incident=incident, occurrences=1, firing_groups=1, clear_pending=False, revision=1
        )
        self._tell(stored, "opened")

    def _tell(self, stored: StoredIncident, change: str) -> None:
        self._keep(stored)
        self._told.append((stored, change))

    def _keep(self, stored: StoredIncident) -> None:
        self._current[stored.incident.dedup_key] = stored
        self._changed[stored.incident.id] = stored
