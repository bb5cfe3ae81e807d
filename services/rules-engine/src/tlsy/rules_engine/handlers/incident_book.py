"""From the engine's transitions to incidents, for the transitions of one transaction.

Groups that share a dedup key share an incident: the first that fires opens it, the last that stops resolves
it. Pure: what is stored is given, what is to be stored is asked for.

A value that flaps may move an incident thousands of times in one transaction, and a flood of groups may open
as many. Of an incident the first MAX_STEPS are in its timeline and told, then only where it ended and how
often it moved in between; and so many incidents are opened, and so many changes told.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tlsy.rules_engine.domain import incident as life
from tlsy.rules_engine.domain.incident import IllegalTransition, IncidentId, IncidentState
from tlsy.rules_engine.ports import Refreshed, StoredIncident

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from uuid import UUID

    from tlsy.rules_engine.domain.ast import Rule
    from tlsy.rules_engine.domain.incident import DedupKey, Incident, ReopenPolicy
    from tlsy.rules_engine.domain.turn import Transition

MAX_STEPS: Final = 32
MAX_OPENED: Final = 2_000
#: A transaction takes 10,000 events; some are others'.
MAX_TOLD: Final = 8_000
_RULE: Final = "rule"


class IncidentBook:
    """What becomes of the incidents of some dedup keys."""

    def __init__(self, policy: ReopenPolicy, new_id: Callable[[], UUID]) -> None:
        self._current: dict[DedupKey, StoredIncident | None] = {}
        self._policy = policy
        self._new_id = new_id
        self._changed: dict[IncidentId, StoredIncident] = {}
        self._steps: dict[IncidentId, int] = {}
        self._told: list[tuple[StoredIncident, str]] = []
        self.opened = 0
        self.resolved = 0
        self.refused = 0
        self.untold = 0

    def knows(self, key: DedupKey) -> bool:
        """Whether `learn` was told of the key."""
        return key in self._current

    def learn(self, keys: Sequence[DedupKey], stored: Mapping[DedupKey, StoredIncident]) -> None:
        """What is stored for some keys: the incident that is not resolved, else the newest, if any."""
        for key in keys:
            self._current[key] = stored.get(key)

    def close(self) -> tuple[Sequence[StoredIncident], Sequence[tuple[StoredIncident, str]]]:
        """What is to be stored, in the order in which it first changed, and what others are to hear.

        That is the incident as it was then, and "opened" or "resolved".
        """
        for id_, steps in self._steps.items():
            if steps > MAX_STEPS:
                self._sum_up(self._changed[id_], steps - MAX_STEPS)
        self.untold = max(len(self._told) - MAX_TOLD, 0)
        return list(self._changed.values()), self._told[:MAX_TOLD]

    def refresh(self, key: DedupKey, refreshed: Refreshed) -> None:
        """The rule fired again before what is applied next, or before an operator resolved it."""
        stored = self._current.get(key)
        if stored is None:
            return
        incident = life.refresh(stored.incident, refreshed.at_us)
        if not isinstance(incident, IllegalTransition):
            self._keep(replace(stored, incident=incident, occurrences=stored.occurrences + refreshed.times))
        elif stored.clear_pending:
            self.count(key, refreshed.times)

    def count(self, key: DedupKey, times: int) -> None:
        """The rule fired so often for the incident that was resolved since."""
        stored = self._current.get(key)
        if stored is not None:
            self._keep(replace(stored, occurrences=stored.occurrences + times))

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
        reopened = life.reopen(stored.incident, rule, transition, self._policy)
        if isinstance(reopened, IllegalTransition):
            self._open_new(rule, transition)
            return
        self._move(
            stored,
            replace(
                stored,
                incident=reopened,
                occurrences=stored.occurrences + 1,
                firing_groups=1,
                clear_pending=False,
                revision=stored.revision + 1,
            ),
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
        self.resolved += 1
        self._move(stored, replace(stored, incident=resolved, firing_groups=0, revision=stored.revision + 1))

    def _open_new(self, rule: Rule, transition: Transition) -> None:
        if self.opened >= MAX_OPENED:
            self.refused += 1
            return
        incident: Incident = life.open_incident(IncidentId(str(self._new_id())), rule, transition)
        self.opened += 1
        stored = StoredIncident(
            incident=incident, occurrences=1, firing_groups=1, clear_pending=False, revision=1
        )
        self._move(stored, stored)

    def _move(self, before: StoredIncident, after: StoredIncident) -> None:
        id_ = after.incident.id
        self._steps[id_] = steps = self._steps.get(id_, 0) + 1
        if steps > MAX_STEPS:
            after = replace(after, incident=life.unentered(after.incident, before.incident))
        else:
            self._told.append((after, _change(after)))
        self._keep(after)

    def _sum_up(self, stored: StoredIncident, steps: int) -> None:
        summed = replace(stored, incident=life.entered_at_last(stored.incident, steps))
        self._keep(summed)
        self._told.append((summed, _change(summed)))

    def _keep(self, stored: StoredIncident) -> None:
        if stored.clear_pending:
            # The engine is told in this transaction.
            stored = replace(stored, clear_pending=False)
        self._current[stored.incident.dedup_key] = stored
        self._changed[stored.incident.id] = stored


def _change(stored: StoredIncident) -> str:
    return "resolved" if stored.incident.state is IncidentState.RESOLVED else "opened"
