"""Rules that fire when nothing came: a group is expected from its first event on, in processing time."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from tlsy.rules_engine.domain.operands import no_operands
from tlsy.rules_engine.domain.turn import (
    GroupKey,
    Operands,
    ResolveReason,
    SourceState,
    Transition,
    TransitionKind,
    Turn,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsy.rules_engine.domain.ast import Rule, VersionId
    from tlsy.rules_engine.domain.events import Event

_SECOND_US: Final = 1_000_000


class AbsenceGroup:
    """One expected group: it fires when processing time reaches `deadline_us` without another event."""

    __slots__ = ("alive", "deadline_us", "dirty", "event", "firing", "key", "operands", "rule")

    def __init__(self, rule: AbsenceRule, key: GroupKey, deadline_us: int) -> None:
        self.rule = rule
        self.key = key
        self.deadline_us = deadline_us
        self.firing = False
        self.event: Event | None = None
        self.operands: Operands = {}
        self.dirty = False
        self.alive = True

    @property
    def owner(self) -> VersionId:
        """The version it belongs to."""
        return self.rule.version

    @property
    def values(self) -> GroupKey:
        """The values of the rule's group fields."""
        return self.key

    def read(self) -> Operands:
        """The operands of the last event that came."""
        if self.event is not None:
            self.operands = self.rule.operands(self.event)
            self.event = None
        return self.operands

    def due(self, source: SourceState, key_us: int, clock_us: int) -> None:
        """Sources' clocks do not wake absence groups."""

    def awaits(self, source: SourceState, key_us: int) -> bool:
        """See `due`."""
        del source, key_us
        return False

    def dump(self) -> list[Any]:
        """What `AbsenceRule.restore` takes."""
        return [self.firing, self.deadline_us, self.read()]


class Deadlines:
    """Processing-time deadlines of absence groups, earliest first; entries may be stale, never missing."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, AbsenceGroup]] = []
        self._sequence = count()

    def add(self, group: AbsenceGroup) -> None:
        """Watches `group.deadline_us`."""
        heappush(self._heap, (group.deadline_us, next(self._sequence), group))

    def next_us(self) -> int | None:
        """When `run` may next have something to do."""
        return self._heap[0][0] if self._heap else None

    def run(self, now_us: int, most: int) -> int:
        """Fires groups whose deadline has come; how many entries were looked at, up to `most`."""
        count = 0
        while count < most and self._heap and self._heap[0][0] <= now_us:
            count += 1
            _, _, group = heappop(self._heap)
            if not group.alive or group.firing:
                continue
            if group.deadline_us <= now_us:
                group.rule.emit("open", group, group.deadline_us, group.read())
            else:
                self.add(group)
        return count


class AbsenceRule:
    """An absence rule bound to the engine's state; generated code moves the deadlines of waiting groups."""

    def __init__(self, *, rule: Rule, version: VersionId, turn: Turn, deadlines: Deadlines) -> None:
        self.rule = rule
        self.version = version
        self.turn = turn
        self.groups: dict[GroupKey, AbsenceGroup] = {}
        self.after_us = (rule.absence_s or 0) * _SECOND_US
        self.operands: Callable[[Event], Operands] = no_operands
        self._deadlines = deadlines

    def seen(self, key: GroupKey, event: Event) -> None:
        """An event of a group that is new, or that fires."""
        group = self.groups.get(key)
        deadline_us = self.turn.now_us + self.after_us
        if group is None:
            if not self.turn.admit(len(self.groups)):
                return
            group = self.groups[key] = AbsenceGroup(self, key, deadline_us)
        group.deadline_us = deadline_us
        group.event = event
        self.turn.touch(group)
        if group.firing and self.rule.resolve.mode == "manual":
            return
        if group.firing:
            self.emit("resolve", group, self.turn.now_us, self.operands(event), "cleared")
        self._deadlines.add(group)

    def restore(self, key: GroupKey, stored: list[Any], not_before_us: int) -> None:
        """A group as `AbsenceGroup.dump` wrote it; a waiting one gets at least until `not_before_us`."""
        group = self.groups[key] = AbsenceGroup(self, key, stored[1])
        self.turn.groups += 1
        group.firing, group.operands = stored[0], stored[2]
        if not group.firing:
            group.deadline_us = max(group.deadline_us, not_before_us)
            self._deadlines.add(group)

    def drop(self, group: AbsenceGroup) -> None:
        """The group has no state any more: it is expected again once it has been seen again."""
        del self.groups[group.key]
        self.turn.groups -= 1
        group.alive, group.event = False, None
        self.turn.touch(group)

    def emit(
        self,
        kind: TransitionKind,
        group: AbsenceGroup,
        at_us: int,
        operands: Operands,
        reason: ResolveReason = "",
    ) -> None:
        """Reports a transition and keeps `firing` in step with it."""
        group.firing = kind != "resolve"
        self.turn.touch(group)
        self.turn.transitions.append(
            Transition(
                kind=kind,
                rule=self.rule.name,
                version=self.version,
                group=group.key,
                at_us=at_us,
                operands=operands,
                reason=reason,
            )
        )
