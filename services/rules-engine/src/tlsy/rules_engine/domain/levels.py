"""Rules that follow one signal per group: thresholds and held conditions.

The signal of a group is a step function of event time: each event of the rule's type and group is a sample,
in the order (event time, arrival). `judge` is called for a sample that is not older than the group's
newest, `amend` for one that is. A group that is neither firing nor pending has no state: that its newest
sample was false is known from the order keys of its source, which all rules of one event type and grouping
share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from tlsy.rules_engine.domain.operands import no_operands
from tlsy.rules_engine.domain.turn import (
    NEVER,
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

SECOND_US: Final = 1_000_000


class LevelGroup:
    """One firing, pending or remembered group of a level rule; which fields matter depends on the rule.

    `since_us` is the first true sample after `false_us`, the newest false one before it; `trues` the true
    samples that a late one could still come before; `newest_us` the newest sample that said anything.
    """

    __slots__ = (
        "alive",
        "deadline_us",
        "dirty",
        "event",
        "false_us",
        "firing",
        "key",
        "newest_us",
        "operands",
        "rule",
        "since_us",
        "source",
        "timer_us",
        "trues",
    )

    def __init__(self, rule: LevelRule, key: GroupKey, source: SourceState, at_us: int) -> None:
        self.rule = rule
        self.key = key
        self.source = source
        self.firing = False
        self.since_us = at_us
        self.newest_us = at_us
        self.false_us: int | None = None
        self.trues: list[int] = []
        self.deadline_us = NEVER
        self.timer_us = NEVER
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
        return (self.source.name, *self.key[1:])

    def read(self) -> Operands:
        """The operands of the newest true sample."""
        if self.event is not None:
            self.operands = self.rule.operands(self.event)
            self.event = None
        return self.operands

    def due(self, source: SourceState, key_us: int, clock_us: int) -> None:
        """Hands the timer to the rule, unless the group is gone."""
        if key_us == self.timer_us:
            self.timer_us = NEVER
        if self.alive:
            self.rule.due(self, source, clock_us)

    def awaits(self, source: SourceState, key_us: int) -> bool:
        """See `Timed`."""
        del source
        return self.alive and key_us == self.timer_us

    def dump(self) -> list[Any]:
        """What `load` takes."""
        return [
            self.firing,
            self.since_us,
            self.newest_us,
            self.false_us,
            self.trues,
            self.deadline_us,
            self.read(),
        ]

    def load(self, stored: list[Any]) -> None:
        """The inverse of `dump`."""
        self.firing, self.since_us, self.newest_us, self.false_us = stored[:4]
        self.trues, self.deadline_us, self.operands = stored[4:]


class LevelRule:
    """A level rule bound to the engine's state."""

    only_refreshes: ClassVar[bool] = False
    """Whether a true sample of a group with state changes nothing in it."""

    def __init__(
        self,
        *,
        rule: Rule,
        version: VersionId,
        track: str,
        turn: Turn,
    ) -> None:
        self.rule = rule
        self.version = version
        self.track = track
        self.turn = turn
        self.lateness_us = rule.lateness_s * SECOND_US
        self.operands: Callable[[Event], Operands] = no_operands
        self.size = 0

    def hit(self, group: LevelGroup, at_us: int, event: Event) -> None:
        """The newest sample of a group with state is true."""

    def begin(
        self, key: GroupKey, before_us: int | None, at_us: int, event: Event, source: SourceState
    ) -> None:
        """The newest sample of a group without state is true; the one before it was at `before_us`."""

    def miss(self, group: LevelGroup, at_us: int, event: Event) -> None:
        """The newest sample of a group with state is not true."""

    def close(self, key: GroupKey, at_us: int, event: Event, source: SourceState) -> None:
        """A sample makes the rule's own resolve condition true and the rule false."""

    def late_hit(self, key: GroupKey, newest_us: int, at_us: int, event: Event, source: SourceState) -> None:
        """A sample older than the newest, at `newest_us`, is true."""

    def late_miss(self, group: LevelGroup, at_us: int, event: Event) -> None:
        """A sample older than the newest, of a group with state, is not true."""

    def due(self, group: LevelGroup, source: SourceState, clock_us: int) -> None:
        """A timer of the group has run out."""

    def settle(self, group: LevelGroup) -> None:
        """The group's instant has reached its deadline."""

    def restore(self, key: GroupKey, source: SourceState, stored: list[Any]) -> None:
        """A group as `LevelGroup.dump` wrote it, with its timer."""
        self.size += 1
        self.turn.groups += 1
        group = LevelGroup(self, key, source, 0)
        group.load(stored)
        source.active.setdefault(key, {})[self] = group
        self.rearm(group, source)

    def rearm(self, group: LevelGroup, source: SourceState) -> None:
        """Sets the timer that a restored group needs; never due already, as it was set before."""
        if group.deadline_us != NEVER:
            group.timer_us = group.deadline_us + self.lateness_us
            self.turn.wake(source, group.timer_us, group)

    def group(self, key: GroupKey, source: SourceState) -> LevelGroup | None:
        """The state of a group, if it has any."""
        groups = source.active.get(key)
        return None if groups is None else groups.get(self)

    def add(self, key: GroupKey, source: SourceState, at_us: int) -> LevelGroup | None:
        """State for a group, or None, counted, if there are as many as may be."""
        if not self.turn.admit(self.size):
            return None
        self.size += 1
        found = LevelGroup(self, key, source, at_us)
        source.active.setdefault(key, {})[self] = found
        self.turn.touch(found)
        return found

    def drop(self, group: LevelGroup) -> None:
        """The group has no state any more."""
        self.size -= 1
        self.turn.groups -= 1
        group.alive = False
        # The group may be in a timer for long, and the event holds the record that it came with.
        group.event = None
        if group.timer_us != NEVER:
            self.turn.stale(group.source)
        active = group.source.active
        groups = active[group.key]
        del groups[self]
        if not groups:
            del active[group.key]
        self.turn.touch(group)

    def emit(
        self,
        kind: TransitionKind,
        group: LevelGroup,
        at_us: int,
        operands: Operands,
        reason: ResolveReason = "",
    ) -> None:
        """Reports a transition and keeps `firing` and the pending refresh in step with it."""
        group.firing = kind != "resolve"
        if kind == "resolve":
            self.turn.refreshed.pop(group, None)
        if kind != "refresh":
            self.turn.touch(group)
        self.turn.transitions.append(
            Transition(
                kind=kind,
                rule=self.rule.name,
                version=self.version,
                group=group.values,
                at_us=at_us,
                operands=operands,
                reason=reason,
            )
        )

    def wake(self, group: LevelGroup, source: SourceState) -> None:
        """A timer for the group's deadline; at once if the clock is past it."""
        key_us = group.deadline_us + self.lateness_us
        if key_us <= source.max_us:
            self.due(group, source, source.max_us)
        elif key_us < group.timer_us:
            replaced, group.timer_us = group.timer_us, key_us
            self.turn.wake(source, key_us, group)
            if replaced != NEVER:
                self.turn.stale(source)


class Threshold(LevelRule):
    """Fires while the newest sample is true; with `auto: false`, until an operator resolves."""

    only_refreshes = True

    def begin(
        self, key: GroupKey, before_us: int | None, at_us: int, event: Event, source: SourceState
    ) -> None:
        """Opens."""
        del before_us
        group = self.add(key, source, at_us)
        if group is not None:
            self.emit("open", group, at_us, self.operands(event))

    def miss(self, group: LevelGroup, at_us: int, event: Event) -> None:
        """Resolves, unless an operator has to."""
        if self.rule.resolve.mode == "auto":
            self.emit("resolve", group, at_us, self.operands(event), "cleared")
            self.drop(group)

    def late_hit(self, key: GroupKey, newest_us: int, at_us: int, event: Event, source: SourceState) -> None:
        """Opens only what an operator has to resolve: else the newest sample, false, decides."""
        if self.rule.resolve.mode == "manual" and self.group(key, source) is None:
            self.begin(key, newest_us, at_us, event, source)


class ExpiringThreshold(LevelRule):
    """Fires from a true sample until `after_s` have passed since the newest true one."""

    def begin(
        self, key: GroupKey, before_us: int | None, at_us: int, event: Event, source: SourceState
    ) -> None:
        """Opens, and sets the deadline."""
        del before_us
        group = self.add(key, source, at_us)
        if group is not None:
            self.emit("open", group, at_us, self.operands(event))
            group.deadline_us = at_us + self._after_us
            self.wake(group, source)

    def hit(self, group: LevelGroup, at_us: int, event: Event) -> None:
        """Moves the deadline."""
        group.deadline_us = at_us + self._after_us
        self.turn.touch(group)
        self.turn.refreshed[group] = event

    def late_hit(self, key: GroupKey, newest_us: int, at_us: int, event: Event, source: SourceState) -> None:
        """Opens or moves the deadline if that is still ahead of the newest sample."""
        group = self.group(key, source)
        if group is None:
            if newest_us < at_us + self._after_us:
                self.begin(key, newest_us, at_us, event, source)
        elif at_us + self._after_us > group.deadline_us:
            self.hit(group, at_us, event)

    def settle(self, group: LevelGroup) -> None:
        """Resolves: the deadline has come."""
        self.emit("resolve", group, group.deadline_us, {}, "expired")
        self.drop(group)

    def due(self, group: LevelGroup, source: SourceState, clock_us: int) -> None:
        """Resolves, or waits for a deadline that has moved."""
        if group.deadline_us + self.lateness_us <= clock_us:
            self.settle(group)
        else:
            self.wake(group, source)

    @property
    def _after_us(self) -> int:
        return (self.rule.resolve.after_s or 0) * SECOND_US


class Hysteresis(LevelRule):
    """Fires from a sample that is true until one that makes `resolve.when` true; others say nothing.

    Remembers the newest sample that said something until none before it can be accepted any more.
    """

    def begin(
        self, key: GroupKey, before_us: int | None, at_us: int, event: Event, source: SourceState
    ) -> None:
        """Opens."""
        del before_us
        group = self.add(key, source, at_us)
        if group is not None:
            self.emit("open", group, at_us, self.operands(event))

    def hit(self, group: LevelGroup, at_us: int, event: Event) -> None:
        """Opens, or refreshes."""
        group.newest_us = at_us
        self.turn.touch(group)
        if group.firing:
            self.turn.refreshed[group] = event
        else:
            self.emit("open", group, at_us, self.operands(event))

    def late_hit(self, key: GroupKey, newest_us: int, at_us: int, event: Event, source: SourceState) -> None:
        """Counts if nothing newer said something."""
        group = self.group(key, source)
        if group is None:
            self.begin(key, newest_us, at_us, event, source)
        elif at_us >= group.newest_us:
            self.hit(group, at_us, event)

    def close(self, key: GroupKey, at_us: int, event: Event, source: SourceState) -> None:
        """Resolves, and remembers when."""
        group = self.group(key, source) or self.add(key, source, at_us)
        if group is None or at_us < group.newest_us:
            return
        group.newest_us = at_us
        self.turn.touch(group)
        if group.firing:
            self.emit("resolve", group, at_us, self.operands(event), "cleared")
        if group.timer_us == NEVER:
            self.forget_later(group, source, source.max_us)

    def due(self, group: LevelGroup, source: SourceState, clock_us: int) -> None:
        """Forgets, once nothing older can come."""
        if group.firing:
            return
        if group.newest_us + self.lateness_us <= source.max_us:
            self.drop(group)
        else:
            self.forget_later(group, source, clock_us)

    def rearm(self, group: LevelGroup, source: SourceState) -> None:
        """Sets the timer to forget."""
        if not group.firing:
            self.forget_later(group, source, source.max_us)

    def forget_later(self, group: LevelGroup, source: SourceState, clock_us: int) -> None:
        """A timer for when no sample before the newest can be accepted any more."""
        group.timer_us = max(group.newest_us + self.lateness_us, clock_us + 1)
        self.turn.wake(source, group.timer_us, group)


class Judge:
    """Applies the samples of one order key to every level rule that has or gets state there."""

    def __init__(self, turn: Turn) -> None:
        self._refreshed = turn.refreshed

    def judge(  # noqa: PLR0917 - called from generated code, positionally
        self,
        key: GroupKey,
        before_us: int | None,
        at_us: int,
        event: Event,
        source: SourceState,
        hits: list[LevelRule],
        closes: list[LevelRule],
    ) -> None:
        """A sample not older than the newest: true for `hits`, and for the resolve conditions of `closes`."""
        groups = source.active.get(key, {})
        for group in [group for group in groups.values() if at_us >= group.deadline_us]:
            group.rule.settle(group)
        present = 0
        for rule in hits:
            found = groups.get(rule)
            if found is None:
                rule.begin(key, before_us, at_us, event, source)
                present += rule in groups
                continue
            present += 1
            if rule.only_refreshes:
                self._refreshed[found] = event
            else:
                rule.hit(found, at_us, event)
        if len(groups) > present:
            for group in _others(groups, hits):
                group.rule.miss(group, at_us, event)
        for rule in closes:
            rule.close(key, at_us, event, source)

    def amend(  # noqa: PLR0917 - called from generated code, positionally
        self,
        key: GroupKey,
        newest_us: int,
        at_us: int,
        event: Event,
        source: SourceState,
        hits: list[LevelRule],
        closes: list[LevelRule],
    ) -> None:
        """A sample older than the newest, within the lateness."""
        for group in _others(source.active.get(key, {}), hits):
            group.rule.late_miss(group, at_us, event)
        for rule in hits:
            rule.late_hit(key, newest_us, at_us, event, source)
        for rule in closes:
            rule.close(key, at_us, event, source)


def _others(groups: dict[LevelRule, LevelGroup], hits: list[LevelRule]) -> list[LevelGroup]:
    """The groups of the rules that are not in `hits`."""
    true = set(hits)
    return [group for rule, group in groups.items() if rule not in true]
