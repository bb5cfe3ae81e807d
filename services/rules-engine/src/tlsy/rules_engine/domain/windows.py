"""Aggregates over a sliding window of event time, kept in a ring of buckets: constant memory per group.

A window of W seconds is BUCKETS steps of W / BUCKETS. A group's head is the bucket that its instant is in;
the window is the head and the BUCKETS - 1 buckets before it. The head moves forward only: to the bucket of
a newer sample, and, as the clock of the group's leader passes, to where the oldest filled bucket leaves the
window. The leader is the source of the last sample that fell into the head or moved it. Every bucket that
leaves is judged by itself, so the outcome does not depend on how far the head moves at once.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Final

from tlsy.rules_engine.domain.operands import no_operands
from tlsy.rules_engine.domain.template import AGGREGATE
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
    from collections.abc import Callable, Mapping

    from tlsy.rules_engine.domain.ast import Rule, VersionId, Window
    from tlsy.rules_engine.domain.events import Event

BUCKETS: Final = 50
SCALE: Final = 1e9  # sums are whole numbers of 1e-9, so that adding and removing is exact in any order
_STEP_PER_SECOND_US: Final = 1_000_000 // BUCKETS
_SECOND_US: Final = 1_000_000
_COMPARE: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def step_us(window: Window) -> int:
    """The width of one bucket."""
    return window.over_s * _STEP_PER_SECOND_US


def scaled_threshold(window: Window) -> float:
    """The number that the kept aggregate is compared with: scaled for sums and averages."""
    return round(window.threshold * SCALE) if window.fn in {"sum", "avg"} else window.threshold


class WindowGroup:
    """One group.

    Per bucket it has the `counts` and, by function, the `sums` or the `extremes`; `total`, `sum`, `extreme`
    are over the window, `first` is its oldest filled bucket. Bucket b is at b % BUCKETS.
    """

    __slots__ = (
        "alive",
        "counts",
        "dirty",
        "end",
        "extreme",
        "extremes",
        "firing",
        "first",
        "head",
        "homes",
        "key",
        "leader",
        "leaves_us",
        "rule",
        "sum",
        "sums",
        "total",
    )

    def __init__(self, rule: WindowRule, key: GroupKey, head: int, leader: SourceState) -> None:
        self.rule = rule
        self.key = key
        self.head = head
        self.start(head)
        self.leader = leader
        self.homes: dict[SourceState, int] = {}
        self.firing = False
        self.total = 0
        self.sum: Any = 0
        self.extreme: float | None = None
        self.counts = [0] * BUCKETS
        self.sums: list[Any] = [0] * BUCKETS if rule.sums else []
        self.extremes: list[float | None] = [None] * BUCKETS if rule.pick else []
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

    def start(self, bucket: int) -> None:
        """`bucket` is the oldest filled: it leaves when the head reaches `end`, or the leader `leaves_us`."""
        self.first = bucket
        self.end = bucket + BUCKETS
        self.leaves_us = self.end * self.rule.step_us + self.rule.lateness_us

    def add(self, bucket: int, amount: float) -> None:
        """One sample; `amount` is scaled for sums and averages, and unused for counts."""
        cell = bucket % BUCKETS
        if bucket < self.first or not self.total:
            self.start(bucket)
        self.counts[cell] += 1
        self.total += 1
        if self.sums:
            self.sums[cell] += amount
            self.sum += amount
        elif (pick := self.rule.pick) is not None:
            held = self.extremes[cell]
            self.extremes[cell] = amount if held is None else pick(held, amount)
            self.extreme = amount if self.extreme is None else pick(self.extreme, amount)

    def shift(self) -> None:
        """The oldest filled bucket leaves the window."""
        cell = self.first % BUCKETS
        self.total -= self.counts[cell]
        self.counts[cell] = 0
        if self.sums:
            self.sum -= self.sums[cell]
            self.sums[cell] = 0
        elif (pick := self.rule.pick) is not None:
            self.extremes[cell] = None
            left = [extreme for extreme in self.extremes if extreme is not None]
            self.extreme = pick(left) if left else None
        if self.total:
            self.start(self._next_filled(self.first + 1))

    def _next_filled(self, bucket: int) -> int:
        while not self.counts[bucket % BUCKETS]:
            bucket += 1
        return bucket

    def due(self, source: SourceState, key_us: int, clock_us: int) -> None:
        """Lets buckets leave, if the source still leads."""
        if self.homes.get(source) == key_us:
            del self.homes[source]
        if self.alive and self.leader is source:
            self.rule.expire_by_clock(self, clock_us)

    def awaits(self, source: SourceState, key_us: int) -> bool:
        """See `Timed`."""
        return self.alive and self.homes.get(source) == key_us

    def dump(self) -> list[Any]:
        """What `WindowRule.restore` takes."""
        counts = self.counts
        filled = [b for b in range(self.first, self.head + 1) if counts[b % BUCKETS]] if self.total else []
        amounts: list[Any] = []
        if self.sums:
            amounts = [str(self.sums[b % BUCKETS]) for b in filled]
        elif self.extremes:
            amounts = [self.extremes[b % BUCKETS] for b in filled]
        return [
            self.firing,
            self.head,
            self.leader.name,
            [self.head - b for b in filled],
            [counts[b % BUCKETS] for b in filled],
            amounts,
        ]

    def load(self, stored: list[Any]) -> None:
        """The inverse of `dump`, but for head and leader, which the constructor took."""
        self.firing = stored[0]
        self.start(self.head - max(stored[3], default=0))
        for age, counted, amount in zip(stored[3], stored[4], stored[5] or stored[4], strict=True):
            cell = (self.head - age) % BUCKETS
            self.counts[cell] = counted
            self.total += counted
            if self.sums:
                self.sums[cell] = int(amount)
                self.sum += int(amount)
            elif self.extremes:
                self.extremes[cell] = amount
        if self.rule.pick is not None:
            self.extreme = self.rule.pick(
                (extreme for extreme in self.extremes if extreme is not None), default=None
            )


class WindowRule:
    """A window rule bound to the engine's state.

    Generated code adds samples that move nothing out of the window; all else, and every change of `firing`,
    is done here.
    """

    def __init__(self, *, rule: Rule, window: Window, version: VersionId, turn: Turn) -> None:
        self.rule = rule
        self.version = version
        self.turn = turn
        self.groups: dict[GroupKey, WindowGroup] = {}
        self.fn = window.fn
        self.sums = window.fn in {"sum", "avg"}
        self.pick: Callable[..., Any] | None = {"min": min, "max": max}.get(window.fn)
        self.step_us = step_us(window)
        self.lateness_us = rule.lateness_s * _SECOND_US
        self._compare = _COMPARE[window.op]
        self._threshold = scaled_threshold(window)
        self.operands: Callable[[Event], Operands] = no_operands

    def add(  # noqa: PLR0917 - called from generated code, positionally
        self, key: GroupKey, bucket: int, amount: float, at_us: int, event: Event, source: SourceState
    ) -> None:
        """A sample that does not simply fall into the head's bucket from the leader."""
        group = self.groups.get(key)
        if group is None:
            if not self.turn.admit(len(self.groups)):
                return
            group = self.groups[key] = WindowGroup(self, key, bucket, source)
        elif bucket > group.head:
            self._expire_until(group, bucket)
            group.head = bucket
        elif bucket <= group.head - BUCKETS:
            self.turn.counters.window_late += 1
            return
        if bucket == group.head:
            group.leader = source
        group.add(bucket, amount)
        self.turn.touch(group)
        self.judge(group, at_us, event)
        self.expire_by_clock(group, group.leader.max_us)

    def judge(self, group: WindowGroup, at_us: int, event: Event | None) -> None:
        """Compares the aggregate and reports what changed; `event` is the sample, None when a bucket left."""
        if self.holds(group):
            if group.firing:
                if event is not None:
                    self.turn.refreshed[group] = event
                return
            self._emit("open", group, at_us, event)
        elif group.firing:
            self.turn.refreshed.pop(group, None)
            self._emit("resolve", group, at_us, event, "expired" if event is None else "cleared")

    def holds(self, group: WindowGroup) -> bool:
        """Whether the aggregate of a group, if it is not empty, passes the threshold."""
        if not group.total:
            return group.firing and self.rule.resolve.mode == "manual"
        if self.fn == "count":
            held = self._compare(group.total, self._threshold)
        elif self.fn == "sum":
            held = self._compare(group.sum, self._threshold)
        elif self.fn == "avg":
            held = self._compare(group.sum, self._threshold * group.total)
        else:
            held = group.extreme is not None and self._compare(group.extreme, self._threshold)
        return held or (group.firing and self.rule.resolve.mode == "manual")

    def expire_by_clock(self, group: WindowGroup, clock_us: int) -> None:
        """Drops what the leader's clock has passed, and sets the timer for what is next."""
        source = group.leader
        while group.total:
            key_us = group.leaves_us
            if key_us > clock_us:
                replaced = group.homes.get(source)
                if replaced is None or key_us < replaced:
                    group.homes[source] = key_us
                    self.turn.wake(source, key_us, group)
                    if replaced is not None:
                        self.turn.stale(source)
                return
            group.head = max(group.head, group.end)
            self._leave(group)
        if not group.firing:
            self.drop(group)

    def drop(self, group: WindowGroup) -> None:
        """The group has no state any more."""
        del self.groups[group.key]
        self.turn.groups -= 1
        group.alive = False
        for source in group.homes:
            self.turn.stale(source)
        self.turn.touch(group)

    def restore(self, key: GroupKey, stored: list[Any], leader: SourceState) -> None:
        """A group as `WindowGroup.dump` wrote it, with its timer; never due already, as it was set before."""
        group = self.groups[key] = WindowGroup(self, key, stored[1], leader)
        self.turn.groups += 1
        group.load(stored)
        if group.total:
            group.homes[leader] = group.leaves_us
            self.turn.wake(leader, group.leaves_us, group)

    def clear(self, group: WindowGroup) -> None:
        """The operator resolved the group's incident: it does not fire until a sample passes again."""
        group.firing = False
        self.turn.refreshed.pop(group, None)
        self.turn.touch(group)
        if not group.total:
            self.drop(group)

    def read(self, group: WindowGroup, event: Event | None) -> Operands:
        """The fields of the sample and the aggregate, None if the window is empty."""
        found = {} if event is None else self.operands(event)
        found[AGGREGATE] = self._aggregate(group)
        return found

    def _aggregate(self, group: WindowGroup) -> float | None:
        if not group.total:
            return None
        if self.fn == "count":
            return float(group.total)
        if self.pick is not None:
            return group.extreme
        total: int = group.sum
        return total / SCALE if self.fn == "sum" else total / group.total / SCALE

    def _expire_until(self, group: WindowGroup, bucket: int) -> None:
        while group.total and group.end <= bucket:
            self._leave(group)

    def _leave(self, group: WindowGroup) -> None:
        at_us = group.end * self.step_us
        group.shift()
        self.turn.touch(group)
        self.judge(group, at_us, None)

    def _emit(
        self,
        kind: TransitionKind,
        group: WindowGroup,
        at_us: int,
        event: Event | None,
        reason: ResolveReason = "",
    ) -> None:
        group.firing = kind != "resolve"
        self.turn.touch(group)
        self.turn.transitions.append(
            Transition(
                kind=kind,
                rule=self.rule.name,
                version=self.version,
                group=group.key,
                at_us=at_us,
                operands=self.read(group, event),
                reason=reason,
            )
        )
