"""The engine of one tenant: rules, their state, and what events and time do to it.

Pure and synchronous: processing time comes in as `now_us`, and nothing is stored here; each call returns the
transitions it caused and the smallest set of state rows that differ. One caller at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from heapq import heappop
from itertools import islice
from sys import maxsize
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tlsy.rules_engine.domain.absences import AbsenceRule, Deadlines
from tlsy.rules_engine.domain.ast import RuleName, VersionId
from tlsy.rules_engine.domain.codegen import track_name
from tlsy.rules_engine.domain.held import bind_level
from tlsy.rules_engine.domain.levels import Judge, LevelRule
from tlsy.rules_engine.domain.rows import (
    SOURCE_OWNER,
    StateRow,
    load_source,
    pack,
    row_key,
    row_values,
    source_row,
    unpack,
)
from tlsy.rules_engine.domain.turn import (
    FEW_KEYS,
    NEVER,
    Counters,
    GroupKey,
    SourceState,
    Transition,
    Turn,
)
from tlsy.rules_engine.domain.windows import WindowRule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tlsy.rules_engine.domain.compiler import CompiledRuleSet
    from tlsy.rules_engine.domain.events import Event

BoundRule: TypeAlias = LevelRule | WindowRule | AbsenceRule
_SECOND_US: Final = 1_000_000
_EVICTED_SHARE: Final = 16  # a full table of sources gives up one in so many, the longest silent
_KEYS_PER_ROW: Final = 50  # order keys of a source that take as long to write as a row without


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """Bounds on one tenant's state, and the two graces.

    A source silent for `idle_us` of processing time has its timers run on processing time from then on.
    Absence waits at least `restart_grace_us` from when the tenant has an owner: nobody listened before.
    """

    max_groups: int = 500_000
    max_groups_per_rule: int = 10_000
    max_sources: int = 10_000
    max_order_keys_per_source: int = 10_000
    idle_us: int = 60 * _SECOND_US
    restart_grace_us: int = 60 * _SECOND_US


@dataclass(frozen=True, slots=True)
class Effects:
    """What one call did: transitions in the order they happened, refreshes last, and the rows to store."""

    transitions: list[Transition]
    rows: list[StateRow]


class JudgingFailed(Exception):  # noqa: N818 - read as a fact
    """A defect showed: of one of these versions, as far as is known. The engine must not be used any more.

    Attributes:
        suspects: that were being worked on.
        event: that was being judged, if it was one.
    """

    def __init__(self, suspects: Iterable[VersionId], event: Event | None = None) -> None:
        super().__init__("a rule could not be judged")
        self.suspects = frozenset(suspects)
        self.event = event


class Engine:
    """Rules and state of one tenant. See `docs/rules.md` for what each call means."""

    def __init__(self, compiled: CompiledRuleSet, limits: EngineLimits) -> None:
        self._limits = limits
        self.turn = Turn(max_groups=limits.max_groups, max_groups_per_rule=limits.max_groups_per_rule)
        self.judge = Judge(self.turn)
        self._sources: dict[str, SourceState] = {}
        self._deadlines = Deadlines()
        self._rules: dict[VersionId, BoundRule] = {}
        self._programs: dict[str, Callable[..., None]] = {}
        self._horizon_us = 0
        self._touched: dict[str, SourceState] = {}
        self._gone_sources: list[str] = []
        self._full_at_us = -1
        self._bind(compiled)

    @property
    def counters(self) -> Counters:
        """What was left out so far; a copy."""
        return replace(self.turn.counters)

    def apply(self, events: Iterable[Event], now_us: int) -> Effects:
        """Judges events in the order given; where batches begin and end changes refreshes only.

        Raises JudgingFailed, as everything does that changes the state.
        """
        return self.whole(self.feeding(events, now_us, maxsize))

    def feeding(self, events: Iterable[Event], now_us: int, most: int) -> Iterator[list[Transition]]:
        """The first part of `apply`, for some of the events of a batch: what opened and what was resolved.

        In steps of `most` timers: one event may move its source's clock past those of all its groups.
        """
        turn, left = self.turn, most
        turn.now_us = now_us
        sources, programs, touched = self._sources, self._programs, self._touched
        source = event = None
        try:
            for event in events:
                if source is None or source.name != event.source:
                    source = sources.get(event.source) or self._add_source(
                        event.source, event.time_us, now_us
                    )
                    if source is None:
                        continue
                    touched[source.name] = source
                at_us = event.time_us
                if at_us > source.max_us:
                    source.max_us = at_us
                    while at_us >= source.due_us:
                        left -= self._run_timers(source, at_us, left)
                        if left <= 0:
                            yield self._taken()
                            left = most
                program = programs.get(event.type)
                if program is not None:
                    program(event, at_us, source)
        except JudgingFailed:
            raise
        except Exception as error:
            raise JudgingFailed(self._versions_of(event), event) from error
        yield self._taken()

    def settle(self, most: int = maxsize) -> Effects:
        """The second part: refreshes, and the rows to store; of each `most`, and until `settled` not all.

        Fewer of sources with many order keys, whose rows are as large.
        Of two rows with one key that different calls return the later one is right.
        """
        turn = self.turn
        refreshed = list(islice(turn.refreshed.items(), most))
        if len(refreshed) == len(turn.refreshed):
            turn.refreshed.clear()
        for group, _ in refreshed if turn.refreshed else ():
            del turn.refreshed[group]
        touched, left = [], most
        for source in self._touched.values():
            source.seen_us = turn.now_us
            touched.append(source)
            left -= 1 + len(source.newest) // _KEYS_PER_ROW
            if left <= 0:
                break
        for source in touched:
            del self._touched[source.name]
        dirty, turn.dirty = turn.dirty[:most], turn.dirty[most:]
        return self._effects(refreshed, touched, dirty)

    @property
    def settled(self) -> bool:
        """Whether nothing is left for `settle`."""
        return not (self.turn.refreshed or self._touched or self.turn.dirty)

    def advance(self, now_us: int) -> Effects:
        """Lets processing time pass: absence deadlines, and the timers of sources that went silent.

        Not to be called while events wait to be applied: their sources would look silent.
        """
        return self.whole(self.advancing(now_us, maxsize))

    def advancing(self, now_us: int, most: int) -> Iterator[list[Transition]]:
        """The first part of `advance` in steps of `most` deadlines, sources and timers; what each did."""
        self.turn.now_us = now_us
        try:
            while self._deadlines.run(now_us, most) == most:
                yield self._taken()
        except Exception as error:
            raise JudgingFailed(rule.version for rule in self._absences()) from error
        left = most
        for source in list(self._sources.values()):
            left -= 1
            clock_us = source.max_us + (now_us - source.seen_us) - self._limits.idle_us
            while source.due_us != NEVER and clock_us >= source.due_us:
                left -= self._run_timers(source, clock_us, max(left, 1))
                if left <= 0:
                    yield self._taken()
                    left = most
            if left <= 0:
                yield self._taken()
                left = most
        yield self._taken()

    def whole(self, parts: Iterable[list[Transition]]) -> Effects:
        """All that the parts do, and the rest of it."""
        transitions = [transition for part in parts for transition in part]
        settled = self.settle()
        return Effects(transitions + settled.transitions, settled.rows)

    def next_deadline_us(self) -> int | None:
        """When, in processing time, `advance` may have something to do; looks at every source."""
        idle_us = self._limits.idle_us
        found = [
            source.seen_us + source.due_us - source.max_us + idle_us
            for source in self._sources.values()
            if source.due_us != NEVER
        ]
        absence_us = self._deadlines.next_us()
        return min(found if absence_us is None else [*found, absence_us], default=None)

    def replace(self, compiled: CompiledRuleSet, now_us: int) -> Effects:
        """Puts other versions live.

        Versions in both sets keep their state; the groups of the others are given up, and those that fired
        are resolved as superseded.
        """
        return self.whole(self.replacing(compiled, now_us, maxsize))

    def replacing(self, compiled: CompiledRuleSet, now_us: int, most: int) -> Iterator[list[Transition]]:
        """The first part of `replace` in steps of `most` groups; before the last no event is to be judged."""
        self.turn.now_us = now_us
        kept = {version for version, _ in compiled.versions}
        for version, rule in list(self._rules.items()):
            if version not in kept:
                for number, group in enumerate(self._groups(rule), 1):
                    self._give_up(rule, group)
                    if number % most == 0:
                        yield self._taken()
                del self._rules[version]
        self._bind(compiled)
        yield self._taken()

    def clear(self, rule: RuleName, matches: Callable[[GroupKey], bool]) -> Effects:
        """An operator resolved these groups' incident: it opens again when its rule next fires for one."""
        return self.whole(self.clearing(rule, matches, maxsize))

    def clearing(
        self, rule: RuleName, matches: Callable[[GroupKey], bool], most: int
    ) -> Iterator[list[Transition]]:
        """The first part of `clear` in steps of `most` groups."""
        for bound in self._rules.values():
            if bound.rule.name == rule:
                for number, found in enumerate(self._groups(bound), 1):
                    if matches(found.values):
                        _clear(bound, found)
                    if number % most == 0:
                        yield self._taken()
        yield self._taken()

    def dump(self) -> list[StateRow]:
        """The whole state."""
        rows = [source_row(source, self._horizon_us) for source in self._sources.values()]
        for rule in self._rules.values():
            rows += [_row(group) for group in self._groups(rule)]
        return rows

    def load(self, rows: Iterable[StateRow], since_us: int) -> None:
        """Restores into a new engine what `dump`, or the rows of all effects, last said.

        Rows of versions that are not live are ignored. Since `since_us` nothing that came was missed: silence
        before that was perhaps not the sources' own.
        """
        for _ in self.loading(rows, since_us, maxsize):
            pass

    def loading(self, rows: Iterable[StateRow], since_us: int, most: int) -> Iterator[None]:
        """`load` in steps of `most` rows; before the last the engine is not to be used."""
        groups = []
        for number, row in enumerate(rows, 1):
            if row.owner == SOURCE_OWNER:
                source = load_source(row, since_us)
                self._sources[source.name] = source
            else:
                groups.append(row)
            if number % most == 0:
                yield
        for number, row in enumerate(groups, 1):
            rule = self._rules.get(VersionId(row.owner))
            if rule is not None and row.payload is not None:
                try:
                    self._restore(rule, row_values(row.key), unpack(row.payload), since_us)
                except Exception as error:
                    raise JudgingFailed([rule.version]) from error
            if number % most == 0:
                yield

    def _bind(self, compiled: CompiledRuleSet) -> None:
        for version, rule in compiled.versions:
            if version not in self._rules:
                self._rules[version] = self._bound(version, rule)
        self._programs = {
            event_type: program.bind(self, [self._rules[version] for version, _ in program.versions])
            for event_type, program in compiled.programs.items()
        }
        self._horizon_us = max((rule.lateness_s for _, rule in compiled.versions), default=0) * _SECOND_US

    def _bound(self, version: VersionId, rule: Any) -> BoundRule:
        if rule.window is not None:
            return WindowRule(rule=rule, window=rule.window, version=version, turn=self.turn)
        if rule.kind == "absence":
            return AbsenceRule(rule=rule, version=version, turn=self.turn, deadlines=self._deadlines)
        return bind_level(rule)(rule=rule, version=version, track=track_name(rule), turn=self.turn)

    def _restore(self, rule: BoundRule, values: GroupKey, stored: Any, since_us: int) -> None:
        if isinstance(rule, AbsenceRule):
            rule.restore(values, stored, since_us + self._limits.restart_grace_us)
        elif isinstance(rule, WindowRule):
            rule.restore(values, stored, self._sources[stored[2]])
        else:
            key = (rule.track, *values[1:])
            rule.restore(key, self._sources[str(values[0])], stored)

    def _add_source(self, name: str, at_us: int, now_us: int) -> SourceState | None:
        if len(self._sources) >= self._limits.max_sources and not self._evict_sources(now_us):
            self.turn.counters.sources_refused += 1
            return None
        source = self._sources[name] = SourceState(name, row_key((name,)), at_us, now_us)
        return source

    def _evict_sources(self, now_us: int) -> bool:
        if self._full_at_us == now_us:
            # Looking at every source for every event of a new one would be the end of everybody else.
            return False
        leading = self._leaders()
        idle = [
            source
            for name, source in self._sources.items()
            if not source.active
            and name not in leading
            and not any(group.awaits(source, key_us) for key_us, _, group in source.timers)
        ]
        idle.sort(key=lambda source: source.seen_us)
        share = max(1, self._limits.max_sources // _EVICTED_SHARE)
        for source in idle[:share]:
            del self._sources[source.name]
            self._gone_sources.append(source.name)
        if not idle:
            self._full_at_us = now_us
        return bool(idle)

    def _leaders(self) -> set[str]:
        """Sources whose clocks move windows; one that an operator has to resolve may do without a timer."""
        windows = (rule for rule in self._rules.values() if isinstance(rule, WindowRule))
        return {group.leader.name for rule in windows for group in rule.groups.values()}

    def _run_timers(self, source: SourceState, clock_us: int, most: int) -> int:
        """How many were due, up to `most`."""
        timers, count = source.timers, 0
        while count < most and timers and timers[0][0] <= clock_us:
            count += 1
            key_us, _, group = heappop(timers)
            if not group.awaits(source, key_us):
                source.stale = max(source.stale - 1, 0)
                continue
            try:
                group.due(source, key_us, clock_us)
            except Exception as error:
                raise JudgingFailed([group.owner]) from error
        source.due_us = timers[0][0] if timers else NEVER
        return count

    def _taken(self) -> list[Transition]:
        """The transitions since the last time."""
        transitions, self.turn.transitions = self.turn.transitions, []
        return transitions

    def _versions_of(self, event: Event | None) -> Iterable[VersionId]:
        kind = None if event is None else event.type
        return [version for version, rule in self._rules.items() if rule.rule.event_type == kind]

    def _absences(self) -> Iterable[AbsenceRule]:
        return [rule for rule in self._rules.values() if isinstance(rule, AbsenceRule)]

    def _groups(self, rule: BoundRule) -> list[Any]:
        if not isinstance(rule, LevelRule):
            return list(rule.groups.values())
        active = (groups for source in self._sources.values() for groups in source.active.values())
        return [groups[rule] for groups in active if rule in groups]

    def _give_up(self, rule: BoundRule, group: Any) -> None:
        if group.firing:
            self.turn.transitions.append(
                Transition(
                    kind="resolve",
                    rule=rule.rule.name,
                    version=rule.version,
                    group=group.values,
                    at_us=self.turn.now_us,
                    operands={},
                    reason="superseded",
                )
            )
        rule.drop(group)

    def _effects(
        self, refreshed: list[tuple[Any, Event]], touched: list[SourceState], dirty: list[Any]
    ) -> Effects:
        turn = self.turn
        for group, event in refreshed:
            try:
                turn.transitions.append(_refresh(group, event))
            except Exception as error:
                raise JudgingFailed([group.owner]) from error
        for source in touched:
            if len(source.newest) > min(source.crowded_at, self._limits.max_order_keys_per_source):
                self._forget_order_keys(source)
        rows = [
            StateRow(SOURCE_OWNER, row_key((name,)), None)
            for name in self._gone_sources
            if name not in self._sources
        ]
        self._gone_sources.clear()
        rows += [source_row(source, self._horizon_us) for source in touched if source.name in self._sources]
        rows += _changed_rows(dirty)
        return Effects(self._taken(), rows)

    def _forget_order_keys(self, source: SourceState) -> None:
        """Drops order keys that can no longer matter and, counted, the oldest beyond the cap."""
        cut_us = source.max_us - self._horizon_us
        kept = {key: at_us for key, at_us in source.newest.items() if at_us > cut_us}
        excess = max(len(kept) - self._limits.max_order_keys_per_source, 0)
        for key in sorted(kept, key=kept.__getitem__)[:excess]:
            del kept[key]
        self.turn.counters.order_keys_evicted += excess
        source.newest = kept
        source.crowded_at = max(2 * len(kept), FEW_KEYS)


def _clear(rule: BoundRule, group: Any) -> None:
    if isinstance(rule, WindowRule):
        rule.clear(group)
        return
    if isinstance(rule, LevelRule):
        rule.turn.refreshed.pop(group, None)
    rule.drop(group)


def _refresh(group: Any, event: Event) -> Transition:
    rule = group.rule
    operands = rule.read(group, event) if isinstance(rule, WindowRule) else rule.operands(event)
    return Transition(
        kind="refresh",
        rule=rule.rule.name,
        version=rule.version,
        group=group.values,
        at_us=event.time_us,
        operands=operands,
    )


def _row(group: Any) -> StateRow:
    return StateRow(group.rule.version, row_key(group.values), pack(group.dump()))


def _changed_rows(dirty: list[Any]) -> list[StateRow]:
    """One row per changed group; a group that ended and began again in one call is written, not deleted."""
    rows: list[StateRow] = []
    gone: list[StateRow] = []
    for group in dirty:
        group.dirty = False
        if group.alive:
            try:
                rows.append(_row(group))
            except Exception as error:
                raise JudgingFailed([group.owner]) from error
        else:
            gone.append(StateRow(group.rule.version, row_key(group.values), None))
    if gone:
        written = {row[:2] for row in rows}
        rows += [row for row in dict.fromkeys(gone) if row[:2] not in written]
    return rows
