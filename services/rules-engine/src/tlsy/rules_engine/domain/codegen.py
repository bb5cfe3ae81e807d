"""One Python function per event type for all rules of a tenant.

The conjuncts of all rules are arranged as a tree of `if`s: the one that most rules share is tested first,
once, with those rules inside it. Siblings that compare one field with constants become one dict look-up
(equality) or one bisection (order). Fields and arithmetic that several branches use are set once, where the
branches part. Window rules add to their group's ring in place; level rules are collected in a list per
order track (lateness, group fields) and applied together at the end.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tlsy.rules_engine.domain.ast import (
    Field,
    Not,
    Rule,
    Value,
    VersionId,
)
from tlsy.rules_engine.domain.branches import (
    Branch,
    Task,
    all_loads,
    branches_of,
    bundles_of,
    conjuncts_of,
    equality,
    equality_of,
    only_hits,
    order_of,
    shared_loads,
)
from tlsy.rules_engine.domain.conditions import Key, Names, Scope, loads_of
from tlsy.rules_engine.domain.events import (
    MAX_AGGREGATED,
    SEVERITY_RANK,
    data_boolean,
    data_number,
    data_scalar,
    data_string,
)
from tlsy.rules_engine.domain.operands import Operand, Told, operand_fields
from tlsy.rules_engine.domain.rows import row_key
from tlsy.rules_engine.domain.template import shortened
from tlsy.rules_engine.domain.turn import NEVER
from tlsy.rules_engine.domain.windows import BUCKETS, SCALE, scaled_threshold, step_us

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import CodeType

Version: TypeAlias = tuple[VersionId, Rule]
_SECOND_US: Final = 1_000_000
_MAX_DEPTH: Final = 40  # blocks within blocks; Python reads a hundred, and those below need some of them
_SYMBOL: Final[Mapping[str, str]] = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_GLOBALS: Final[Mapping[str, Any]] = {
    "__builtins__": {"abs": abs, "round": round, "min": min, "max": max},
    "severity_rank": SEVERITY_RANK.get,
    "data_number": data_number,
    "data_string": data_string,
    "data_boolean": data_boolean,
    "data_scalar": data_scalar,
    "shortened": shortened,
    "bisect_left": bisect_left,
    "bisect_right": bisect_right,
}


def _rules_at(indexes: Any, rules: Sequence[Any]) -> Any:
    """A table of rule indexes as the same table of rules."""
    if isinstance(indexes, dict):
        return {value: _rules_at(found, rules) for value, found in indexes.items()}
    return tuple(rules[index] for index in indexes)


@dataclass(frozen=True, slots=True)
class TypeProgram:
    """The compiled function of one event type. `names` are the rules it wants bound, in this order."""

    event_type: str
    versions: tuple[Version, ...]
    source: str
    code: CodeType
    constants: tuple[Any, ...]

    def bind(self, runtime: Any, rules: Sequence[Any]) -> Callable[..., None]:
        """The function `judge(event, time_us, source)` over the state of `runtime`; `rules` as `versions`."""
        scope = {**_GLOBALS, "rules_at": _rules_at}
        exec(self.code, scope)  # noqa: S102 - generated above from the AST; user text is only in constants
        made: Callable[..., None] = scope["make"](runtime, self.constants, rules)
        return made


@dataclass(frozen=True, slots=True)
class _Track:
    """Level rules that share lateness and group fields, hence order keys and the list of hits."""

    name: str
    lateness_us: int
    fields: tuple[str, ...]
    number: int
    closes: bool


def track_name(rule: Rule) -> str:
    """What tells the order keys of a level rule from those of rules with other events, lateness or groups.

    A hash, as it is stored once per key.
    """
    told = row_key((rule.event_type, str(rule.lateness_s), *rule.group_fields))
    return sha256(told.encode()).hexdigest()[:16]


def compile_type(event_type: str, versions: tuple[Version, ...]) -> TypeProgram:
    """The program for the enabled rules of one event type."""
    writer = _Writer(versions)
    source = writer.write()
    code = compile(source, "<rules>", "exec", dont_inherit=True, optimize=2)
    return TypeProgram(event_type, versions, source, code, tuple(writer.names.values))


class _Writer:
    """Writes the function; `_lines` grows, depth is given by the caller."""

    def __init__(self, versions: tuple[Version, ...]) -> None:
        self.names = Names()
        self._rules = [rule for _, rule in versions]
        self._lines: list[str] = []
        self._tracks = self._find_tracks()
        latenesses = {rule.lateness_s * _SECOND_US for rule in self._rules}
        self._latest_us = max(latenesses)
        self._mixed = len(latenesses) > 1
        self._counted = 0
        self._tables: list[str] = []

    def write(self) -> str:
        scope = Scope(self.names)
        self._prologue()
        self._block(tuple(self._tasks()), 2, scope)
        for track in self._tracks.values():
            self._judge_track(track, scope)
        body, readers = self._lines, self._readers()
        constants = ", ".join(f"c{index}" for index in range(len(self.names.values)))
        bound = ", ".join(f"r{index}" for index in range(len(self._rules)))
        head = [
            "def make(runtime, constants, rules):",
            "    turn = runtime.turn",
            "    counters = turn.counters",
            "    apply_samples = runtime.judge.judge",
            "    amend_samples = runtime.judge.amend",
            "    touch = turn.touch",
            "    refreshed = turn.refreshed",
            f"    ({constants},) = constants" if constants else "",
            f"    ({bound},) = rules",
            *self._tables,
        ]
        head += readers
        for index, rule in enumerate(self._rules):
            if rule.kind in {"window", "absence"}:
                head.append(f"    g{index} = r{index}.groups")
        return "\n".join([*head, "    def judge(e, t, source):", *body, "    return judge", ""])

    def _readers(self) -> list[str]:
        """A function per distinct set of operands, given to the rules that report it."""
        lines: list[str] = []
        made: dict[tuple[Operand, ...], str] = {}
        for index, rule in enumerate(self._rules):
            fields = operand_fields(rule)
            if fields not in made:
                name = made[fields] = f"o{len(made)}"
                scope = Scope(self.names)
                body = scope.require(field for field in fields if isinstance(field, Field))
                items = ", ".join(f"{self.names.constant(f.path)}: {_reported(f, scope)}" for f in fields)
                lines += [
                    f"    def {name}(e):",
                    *(f"        {line}" for line in body),
                    f"        return {{{items}}}",
                ]
            lines.append(f"    r{index}.operands = {made[fields]}")
        return lines

    def _put(self, depth: int, *lines: str) -> None:
        self._lines += ["    " * depth + line for line in lines]

    def _prologue(self) -> None:
        self._put(
            2,
            "lag = source.max_us - t",
            f"if lag > {self._latest_us}:",
            "    counters.late_events += 1",
            "    return",
        )
        for track in self._tracks.values():
            self._put(2, f"h{track.number} = []")
            if track.closes:
                self._put(2, f"s{track.number} = []")

    def _find_tracks(self) -> dict[str, _Track]:
        tracks: dict[str, _Track] = {}
        for rule in self._rules:
            if rule.kind not in {"threshold", "held"}:
                continue
            name = track_name(rule)
            closes = rule.resolve.mode == "when" or (name in tracks and tracks[name].closes)
            number = tracks[name].number if name in tracks else len(tracks)
            tracks[name] = _Track(name, rule.lateness_s * _SECOND_US, rule.group_fields[1:], number, closes)
        return tracks

    def _tasks(self) -> Iterable[Task]:
        for index, rule in enumerate(self._rules):
            conjuncts = conjuncts_of(rule.when)
            if rule.kind in {"window", "absence"}:
                yield Task(index, conjuncts, rule.kind, "")
                continue
            number = self._tracks[track_name(rule)].number
            yield Task(index, conjuncts, "hit", f"h{number}")
            if rule.resolve.when is not None and rule.when is not None:
                closing = (*conjuncts_of(rule.resolve.when), Not(rule.when))
                yield Task(index, tuple(dict.fromkeys(closing)), "hit", f"s{number}")

    def _block(self, tasks: tuple[Task, ...], depth: int, scope: Scope) -> None:
        done = [task for task in tasks if not task.conjuncts]
        self._act(done, depth, scope)
        if depth > _MAX_DEPTH:
            self._flat([task for task in tasks if task.conjuncts], depth, scope)
            return
        branches = branches_of([task for task in tasks if task.conjuncts])
        shared = {load: number for number, load in enumerate(shared_loads(branches))}
        for bundle in bundles_of(branches):
            needed = [load for branch in bundle for load in loads_of(branch.test)]
            inside = {load for branch in bundle for load in all_loads(branch)} & shared.keys()
            self._put(depth, *scope.require([*needed, *sorted(inside, key=shared.__getitem__)]))
            if len(bundle) == 1:
                self._branch(bundle[0], depth, scope)
            elif equality(bundle[0].test) is not None:
                self._dispatch(bundle, depth, scope)
            else:
                self._ladder(bundle, depth, scope)

    def _flat(self, tasks: Sequence[Task], depth: int, scope: Scope) -> None:
        """Tasks one by one, each below all its conditions at once."""
        for task in tasks:
            self._put(depth, *scope.require(load for test in task.conjuncts for load in loads_of(test)))
            tests = " and ".join(scope.condition(test) for test in task.conjuncts)
            self._put(depth, f"if {tests}:")
            self._act([task], depth + 1, scope.nested())

    def _branch(self, branch: Branch, depth: int, scope: Scope) -> None:
        self._put(depth, f"if {scope.condition(branch.test)}:")
        self._block(branch.tasks, depth + 1, scope.nested())

    def _dispatch(self, bundle: list[Branch], depth: int, scope: Scope) -> None:
        field, _ = equality_of(bundle[0].test)
        index = {equality_of(branch.test)[1]: number for number, branch in enumerate(bundle)}
        if all(only_hits(branch) for branch in bundle) and len({b.tasks[0].hits for b in bundle}) == 1:
            hits = bundle[0].tasks[0].hits
            table = {
                value: tuple(task.index for task in bundle[number].tasks) for value, number in index.items()
            }
            self._put(depth, f"{hits} += {self._lookup(table)}.get({scope.value(field)}, ())")
            return
        name = f"j{self._counted}"
        self._counted += 1
        self._put(
            depth, f"{name} = {self.names.unique(index)}.get({scope.value(field)})", f"if {name} is not None:"
        )
        self._halve(name, bundle, 0, depth + 1, scope)

    def _halve(self, name: str, bundle: list[Branch], start: int, depth: int, scope: Scope) -> None:
        if len(bundle) == 1:
            self._block(bundle[0].tasks, depth, scope.nested())
            return
        middle = len(bundle) // 2
        self._put(depth, f"if {name} < {start + middle}:")
        self._halve(name, bundle[:middle], start, depth + 1, scope)
        self._put(depth, "else:")
        self._halve(name, bundle[middle:], start + middle, depth + 1, scope)

    def _ladder(self, bundle: list[Branch], depth: int, scope: Scope) -> None:
        """All tests are `x op constant` with one op: a prefix or suffix of the sorted ones holds."""
        op, value, _ = order_of(bundle[0].test)
        rungs = sorted(
            ((order_of(branch.test)[2], task.index) for branch in bundle for task in branch.tasks),
        )
        bounds = self.names.unique(tuple(bound for bound, _ in rungs))
        rules = self._lookup([index for _, index in rungs])
        name, hits = scope.value(value), bundle[0].tasks[0].hits
        edge = self.names.constant(rungs[0][0] if op in {"gt", "ge"} else rungs[-1][0])
        cut = f"bisect_{'left' if op in {'gt', 'le'} else 'right'}({bounds}, {name})"
        part = f"{rules}[:{cut}]" if op in {"gt", "ge"} else f"{rules}[{cut}:]"
        self._put(depth, f"if {name} is not None and {name} {_SYMBOL[op]} {edge}:", f"    {hits} += {part}")

    def _lookup(self, rules: Any) -> str:
        """The name of a table of rules, given as their indexes."""
        name = self.names.unique(rules)
        self._tables.append(f"    {name} = rules_at({name}, rules)")
        return name

    def _act(self, tasks: Sequence[Task], depth: int, scope: Scope) -> None:
        by_list: dict[str, list[int]] = {}
        for task in tasks:
            if task.kind == "hit":
                by_list.setdefault(task.hits, []).append(task.index)
            elif task.kind == "absence":
                self._absence(task.index, depth, scope)
        self._windows([task.index for task in tasks if task.kind == "window"], depth, scope)
        for hits, indexes in by_list.items():
            if len(indexes) == 1:
                self._put(depth, f"{hits}.append(r{indexes[0]})")
            else:
                self._put(depth, f"{hits} += ({', '.join(f'r{index}' for index in indexes)})")

    def _guarded(self, rule: Rule, depth: int) -> int:
        """Opens the test that the event is not late for this rule, if other rules allow more."""
        if self._mixed and rule.lateness_s * _SECOND_US < self._latest_us:
            self._put(depth, f"if lag <= {rule.lateness_s * _SECOND_US}:")
            return depth + 1
        return depth

    def _key(self, fields: tuple[str, ...], depth: int, scope: Scope) -> str:
        """The name of a group's key, made here unless it is already."""
        key = Key(tuple(_group_field(path) for path in fields))
        self._put(depth, *scope.require([key]))
        return scope.value(key)

    def _windows(self, indexes: Sequence[int], depth: int, scope: Scope) -> None:
        """The window rules whose filter holds here; those of one value and lateness share their tests."""
        alike: dict[tuple[int, Value | None], list[int]] = {}
        for index in indexes:
            rule = self._rules[index]
            assert rule.window is not None  # noqa: S101 - the task's kind says so
            alike.setdefault((rule.lateness_s, rule.window.of), []).append(index)
        for (_, value), found in alike.items():
            inner = scope.nested()
            at = self._guarded(self._rules[found[0]], depth)
            if value is not None:
                self._put(at, *inner.require(loads_of(value)))
                name = inner.value(value)
                most = repr(MAX_AGGREGATED)
                self._put(at, f"if {name} is not None and -{most} <= {name} <= {most}:")
                at += 1
                if any(self._scaled(index) for index in found):
                    self._put(at, f"n = round({name} * {SCALE!r})")
            for index in found:
                amount = "n" if self._scaled(index) else "0" if value is None else inner.value(value)
                self._window(index, amount, at, inner)

    def _scaled(self, index: int) -> bool:
        window = self._rules[index].window
        return window is not None and window.fn in {"sum", "avg"}

    def _window(self, index: int, amount: str, depth: int, scope: Scope) -> None:
        rule = self._rules[index]
        window = rule.window
        assert window is not None  # noqa: S101 - the task's kind says so
        key = self._key(rule.group_fields, depth, scope)
        emptied = " and g.total" if rule.resolve.mode == "manual" else ""
        self._put(
            depth,
            f"g = g{index}.get({key})",
            f"b = t // {step_us(window)}",
            f"if g is not None and g.head <= b < g.end{emptied}:",
            "    g.head = b",
            f"    b %= {BUCKETS}",
            "    g.counts[b] += 1",
            "    g.total += 1",
        )
        if self._scaled(index):
            self._put(depth + 1, "g.sums[b] += n", "g.sum += n")
        elif window.fn != "count":
            sign = "<" if window.fn == "min" else ">"
            self._put(
                depth + 1,
                "x = g.extremes[b]",
                f"if x is None or {amount} {sign} x:",
                f"    g.extremes[b] = {amount}",
                f"    if {amount} {sign} g.extreme:",
                f"        g.extreme = {amount}",
            )
        threshold = self.names.constant(scaled_threshold(window))
        kept = {"count": "g.total", "min": "g.extreme", "max": "g.extreme"}.get(window.fn, "g.sum")
        bound = f"{threshold} * g.total" if window.fn == "avg" else threshold
        self._put(
            depth + 1,
            f"if {kept} {_SYMBOL[window.op]} {bound}:",
            "    if g.firing:",
            "        refreshed[g] = e",
            "    else:",
            f"        r{index}.judge(g, t, e)",
            "elif g.firing:",
            f"    r{index}.judge(g, t, e)",
            "if g.leader is not source:",
            "    g.leader = source",
            f"    if g.homes.get(source, {NEVER}) > g.leaves_us:",
            f"        r{index}.expire_by_clock(g, source.max_us)",
            "if not g.dirty:",
            "    touch(g)",
        )
        self._put(depth, "else:", f"    r{index}.add({key}, b, {amount}, t, e, source)")

    def _absence(self, index: int, depth: int, scope: Scope) -> None:
        rule = self._rules[index]
        depth = self._guarded(rule, depth)
        key = self._key(rule.group_fields, depth, scope.nested())
        after_us = (rule.absence_s or 0) * _SECOND_US
        self._put(
            depth,
            f"g = g{index}.get({key})",
            "if g is None or g.firing:",
            f"    r{index}.seen({key}, e)",
            "else:",
            f"    g.deadline_us = turn.now_us + {after_us}",
            "    g.event = e",
            "    if not g.dirty:",
            "        touch(g)",
        )

    def _judge_track(self, track: _Track, scope: Scope) -> None:
        depth = 2
        if self._mixed and track.lateness_us < self._latest_us:
            self._put(depth, f"if lag <= {track.lateness_us}:")
            depth += 1
            scope = scope.nested()
        loads = [_group_field(path) for path in track.fields]
        lines = scope.require(loads)
        rest = "".join(f"{scope.value(load)}, " for load in loads)
        hits = f"h{track.number}"
        closes = f"s{track.number}" if track.closes else "()"
        any_closes = f" or {closes}" if track.closes else ""
        self._put(
            depth,
            *lines,
            f"k = ({self.names.constant(track.name)}, {rest})",
            "newest = source.newest",
            "p = newest.get(k)",
            "if p is None or t >= p:",
            "    newest[k] = t",
            f"    if {hits} or (source.active and k in source.active){any_closes}:",
            f"        apply_samples(k, p, t, e, source, {hits}, {closes})",
            f"elif {hits} or (source.active and k in source.active){any_closes}:",
            f"    amend_samples(k, p, t, e, source, {hits}, {closes})",
        )


def _reported(field: Operand, scope: Scope) -> str:
    """A field as operands have it. Only texts of `data` can be long."""
    if isinstance(field, Told):
        path = scope.names.constant(tuple(field.path.split(".")[1:]))
        return f"shortened(data_scalar(e.data, {path}))"
    value = scope.value(field)
    return f"shortened({value})" if field.type == "string" and field.path.startswith("data.") else value


def _group_field(path: str) -> Field:
    """A field as it stands in group keys; the severity as its name, not as its rank."""
    return Field(path, "string")
