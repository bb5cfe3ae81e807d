"""What one call of the engine produces, and the state per source that all rules share."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

from tlsy.rules_engine.domain.events import Event, Scalar

if TYPE_CHECKING:
    from tlsy.rules_engine.domain.ast import RuleName, VersionId

NEVER: Final = 2**63
_FEW_TIMERS: Final = 16  # of a source, that may all be stale
FEW_KEYS: Final = 64  # of a source, that may all be older than any sample that is still accepted

GroupKey: TypeAlias = tuple[str | None, ...]
Operands: TypeAlias = dict[str, Scalar | None]
TransitionKind: TypeAlias = Literal["open", "refresh", "resolve"]
ResolveReason: TypeAlias = Literal["", "cleared", "expired", "corrected", "superseded", "operator"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A group of a rule began to fire (open), fired again (refresh: once per group and call), or stopped.

    `group` holds the values of the rule's `group_fields`, in order. `at_us` is the instant the state changed:
    event time, for absence rules processing time. `operands` are the fields the rule reads, as they were.
    """

    kind: TransitionKind
    rule: RuleName
    version: VersionId
    group: GroupKey
    at_us: int
    operands: Operands
    reason: ResolveReason = ""


@dataclass(slots=True)
class Counters:
    """What was left out, and why; all grow."""

    late_events: int = 0
    window_late: int = 0
    zero_divisions: int = 0
    groups_refused: int = 0
    sources_refused: int = 0
    order_keys_evicted: int = 0


class Timed(Protocol):
    """A group that can be woken by its source's clock."""

    @property
    def owner(self) -> VersionId:
        """The version it belongs to."""

    def due(self, source: SourceState, key_us: int, clock_us: int) -> None:
        """The clock of `source`, now at `clock_us`, has reached `key_us`, for which a timer was set."""

    def awaits(self, source: SourceState, key_us: int) -> bool:
        """Whether the timer set for `key_us` still means something to it."""


class Group(Timed, Protocol):
    """The state of one (rule version, group)."""

    dirty: bool

    @property
    def values(self) -> GroupKey:
        """The values of the rule's group fields."""

    @property
    def alive(self) -> bool:
        """Whether it is still part of the state."""

    def dump(self) -> Any:
        """A msgpack-able value that its rule can load."""


@dataclass(slots=True, eq=False)
class SourceState:
    """One source: its clock, which is its newest event time, and when (processing time) it was last heard of.

    An order key is a track's name and the group values after the source. `newest` maps it to the newest event
    time there, `active` to the level groups that have state there, by rule. Of `timers` some are `stale`.
    With more than `crowded_at` order keys those that cannot matter any more are looked for.
    """

    name: str
    row_key: str
    max_us: int
    seen_us: int
    newest: dict[GroupKey, int] = field(default_factory=dict)
    active: dict[GroupKey, dict[Any, Any]] = field(default_factory=dict)
    timers: list[tuple[int, int, Timed]] = field(default_factory=list)
    due_us: int = NEVER
    stale: int = 0
    crowded_at: int = FEW_KEYS


class Turn:
    """The outbox of the call that is running; rules write to it, the engine empties it. And what they share.

    `groups` is how many there are of all rules.
    """

    __slots__ = (
        "counters",
        "dirty",
        "groups",
        "max_groups",
        "max_groups_per_rule",
        "now_us",
        "refreshed",
        "sequence",
        "transitions",
    )

    def __init__(self, *, max_groups: int, max_groups_per_rule: int) -> None:
        self.max_groups = max_groups
        self.max_groups_per_rule = max_groups_per_rule
        self.groups = 0
        self.now_us = 0
        self.transitions: list[Transition] = []
        self.refreshed: dict[Any, Event] = {}
        self.dirty: list[Group] = []
        self.counters = Counters()
        self.sequence = count()

    def admit(self, size: int) -> bool:
        """Whether a rule with so many groups may have one more, which counts from now on; if not, counted."""
        if size >= self.max_groups_per_rule or self.groups >= self.max_groups:
            self.counters.groups_refused += 1
            return False
        self.groups += 1
        return True

    def touch(self, group: Group) -> None:
        """The group's stored state is to be written again."""
        if not group.dirty:
            group.dirty = True
            self.dirty.append(group)

    def wake(self, source: SourceState, key_us: int, group: Timed) -> None:
        """Calls `group.due` when the source's clock reaches `key_us`."""
        heappush(source.timers, (key_us, next(self.sequence), group))
        source.due_us = source.timers[0][0]

    @staticmethod
    def stale(source: SourceState) -> None:
        """A timer of the source means nothing any more: it goes at the latest when most of them do not."""
        source.stale += 1
        timers = source.timers
        if source.stale > _FEW_TIMERS and 2 * source.stale > len(timers):
            timers[:] = [timer for timer in timers if timer[2].awaits(source, timer[0])]
            heapify(timers)
            source.stale = 0
            source.due_us = timers[0][0] if timers else NEVER
