"""Held conditions: true for long enough, in event time, whatever order the samples came in."""

from __future__ import annotations

from bisect import bisect_right, insort
from typing import TYPE_CHECKING, Final

from tlsy.rules_engine.domain.levels import SECOND_US, ExpiringThreshold, Hysteresis, LevelRule, Threshold
from tlsy.rules_engine.domain.turn import NEVER

if TYPE_CHECKING:
    from tlsy.rules_engine.domain.ast import Rule
    from tlsy.rules_engine.domain.events import Event
    from tlsy.rules_engine.domain.levels import LevelGroup
    from tlsy.rules_engine.domain.turn import GroupKey, SourceState

MAX_SAMPLES: Final = 4_096


class Held(LevelRule):
    """Fires once the newest samples have been true for `for_s` of event time."""

    def begin(
        self, key: GroupKey, before_us: int | None, at_us: int, event: Event, source: SourceState
    ) -> None:
        """Starts a run."""
        group = self.add(key, source, at_us)
        if group is None:
            return
        group.false_us = before_us
        group.trues.append(at_us)
        group.event = event
        group.deadline_us = at_us + self._for_us
        self.wake(group, source)

    def hit(self, group: LevelGroup, at_us: int, event: Event) -> None:
        """The run goes on."""
        if group.firing:
            self.turn.refreshed[group] = event
        group.event = event
        group.newest_us = at_us
        trues = group.trues
        trues.append(at_us)
        horizon_us = group.source.max_us - self.lateness_us
        if trues[0] < horizon_us or len(trues) > MAX_SAMPLES:
            del trues[: max(bisect_right(trues, horizon_us - 1), len(trues) - MAX_SAMPLES)]
        if not group.dirty:
            self.turn.touch(group)

    def miss(self, group: LevelGroup, at_us: int, event: Event) -> None:
        """The run ends."""
        if group.firing:
            if self._latched:
                return
            self.emit("resolve", group, at_us, self.operands(event), "cleared")
        self.drop(group)

    def late_hit(self, key: GroupKey, newest_us: int, at_us: int, event: Event, source: SourceState) -> None:
        """The run may have begun earlier."""
        del newest_us, event
        group = self.group(key, source)
        if group is None or (group.firing and self._latched):
            return
        if at_us < group.since_us and group.false_us is not None and at_us < group.false_us:
            return
        insort(group.trues, at_us)
        self.turn.touch(group)
        if at_us < group.since_us:
            self._restart(group, at_us, at_us)

    def late_miss(self, group: LevelGroup, at_us: int, event: Event) -> None:
        """The run may have begun later."""
        del event
        if group.firing and self._latched:
            return
        self.turn.touch(group)
        if at_us < group.since_us:
            group.false_us = at_us if group.false_us is None else max(group.false_us, at_us)
            return
        group.false_us = at_us
        self._restart(group, group.trues[bisect_right(group.trues, at_us)], at_us)

    def settle(self, group: LevelGroup) -> None:
        """Opens: the run has lasted."""
        self.emit("open", group, group.deadline_us, group.read())
        group.deadline_us = NEVER

    def due(self, group: LevelGroup, source: SourceState, clock_us: int) -> None:
        """Opens, or waits for a deadline that has moved."""
        if group.deadline_us + self.lateness_us <= clock_us:
            self.settle(group)
        elif not group.firing:
            self.wake(group, source)

    def _restart(self, group: LevelGroup, since_us: int, at_us: int) -> None:
        """The run of true samples begins elsewhere, because of a late sample at `at_us`."""
        group.since_us = since_us
        deadline_us = since_us + self._for_us
        held = max(group.newest_us, group.source.max_us - self.lateness_us) >= deadline_us
        if held and group.firing:
            return
        group.deadline_us = deadline_us
        if held:
            self.settle(group)
            return
        if group.firing:
            self.emit("resolve", group, at_us, {}, "corrected")
        self.wake(group, group.source)

    @property
    def _latched(self) -> bool:
        return self.rule.resolve.mode == "manual"

    @property
    def _for_us(self) -> int:
        return (self.rule.for_s or 0) * SECOND_US


def bind_level(rule: Rule) -> type[LevelRule]:
    """The behaviour of a threshold or held rule."""
    if rule.for_s is not None:
        return Held
    return {"auto": Threshold, "manual": Threshold, "after": ExpiringThreshold, "when": Hysteresis}[
        rule.resolve.mode
    ]
