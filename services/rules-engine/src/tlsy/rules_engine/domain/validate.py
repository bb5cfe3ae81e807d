"""From a rule document to a Rule, or to the list of everything that is wrong with it."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar, cast, get_args

from tlsy.rules_engine.domain.ast import (
    SCHEMA,
    AggregateFn,
    CompareOp,
    Condition,
    IncidentSpec,
    Resolve,
    ResolveMode,
    Rule,
    RuleName,
    Window,
)
from tlsy.rules_engine.domain.cost import rule_cost
from tlsy.rules_engine.domain.document import decode
from tlsy.rules_engine.domain.events import MAX_AGGREGATED, SEVERITIES
from tlsy.rules_engine.domain.expressions import ExpressionParser
from tlsy.rules_engine.domain.problems import (
    MAX_PROBLEMS,
    Code,
    EnoughProblems,
    ObservedSchema,
    Problem,
    Report,
    RuleLimits,
    pointer_of,
)
from tlsy.rules_engine.domain.template import AGGREGATE, placeholders

DEFAULT_LATENESS_S: Final = 30
DEFAULT_GROUP_BY: Final = ("source", "subject")
_NAME: Final = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_REQUIRED: Final = frozenset({"schema", "name", "match", "incident"})
_OPTIONAL: Final = frozenset(
    {
        "description",
        "when",
        "for_s",
        "window",
        "absence",
        "group_by",
        "resolve",
        "lateness_s",
        "enabled",
    }
)
_T = TypeVar("_T", str, bool)


def validate(document: bytes | object, schema: ObservedSchema, limits: RuleLimits) -> Rule | list[Problem]:
    """The rule that a document (JSON bytes, or the decoded object) means, or every problem with it.

    With an empty `schema`, or `"unseen": true` in `match`, fields and types never seen are accepted.
    """
    raw, problems = decode(document, limits)
    if problems:
        return problems[:MAX_PROBLEMS]
    if not isinstance(raw, dict):
        return [Problem("", Code.WRONG_TYPE, "a rule is a JSON object")]
    report = Report()
    try:
        rule = _RuleReader(raw, schema, limits, report).read()
    except EnoughProblems:
        return report.problems
    if not report.problems and (cost := rule_cost(rule)) > limits.max_cost:
        return [Problem("", Code.TOO_COSTLY, f"costs {cost} units per event, at most {limits.max_cost}")]
    return report.problems or rule


class _RuleReader:
    """Reads the members of one document; every method reports and goes on, until it is enough."""

    def __init__(
        self, raw: dict[str, Any], schema: ObservedSchema, limits: RuleLimits, report: Report
    ) -> None:
        self._report = report.add
        self._did_you_mean = report.did_you_mean
        self._raw = raw
        self._limits = limits
        self._members("", raw, _REQUIRED, _OPTIONAL)
        self._event_type, self._unseen = self._match(schema)
        known = bool(schema.event_types) and not self._unseen
        seen = (schema.fields_of(self._event_type) or None) if known else None
        self._parser = ExpressionParser(report, limits, seen)

    def read(self) -> Rule:
        """The rule; with problems it means nothing."""
        raw = self._raw
        if raw.get("schema", SCHEMA) != SCHEMA:
            self._report("/schema", Code.UNKNOWN_SCHEMA, "another schema", f'write "{SCHEMA}"')
        name = self._name()
        when = self._parser.condition(raw["when"], "/when") if "when" in raw else None
        for_s = self._seconds("/for_s", raw["for_s"], 1, self._limits.max_for_s) if "for_s" in raw else None
        window = self._window() if "window" in raw else None
        absence_s = self._absence() if "absence" in raw else None
        self._kind_conflicts()
        group_by = self._group_by()
        return Rule(
            name=RuleName(name),
            description=self._typed("/description", raw.get("description", ""), str, ""),
            event_type=self._event_type,
            unseen=self._unseen,
            when=when,
            for_s=for_s,
            window=window,
            absence_s=absence_s,
            group_by=group_by,
            incident=self._incident(group_by),
            resolve=self._resolve(),
            lateness_s=self._lateness(),
            enabled=self._typed("/enabled", raw.get("enabled", True), bool, True),
        )

    def _members(
        self, pointer: str, raw: dict[str, Any], required: frozenset[str], optional: frozenset[str]
    ) -> None:
        for name in sorted(required - raw.keys()):
            self._report(pointer, Code.MISSING_MEMBER, f"{name!r} is missing")
        for name in raw:
            if name not in required and name not in optional:
                hint = self._did_you_mean(name, sorted(required | optional))
                self._report(pointer_of(pointer, name), Code.UNKNOWN_MEMBER, f"unknown member {name!r}", hint)

    def _object(
        self, name: str, required: frozenset[str], optional: frozenset[str] = frozenset()
    ) -> dict[str, Any]:
        raw = self._raw.get(name, {})
        if not isinstance(raw, dict):
            self._report(f"/{name}", Code.WRONG_TYPE, "an object is needed")
            return {}
        if name in self._raw:
            self._members(f"/{name}", raw, required, optional)
        return raw

    def _typed(self, pointer: str, value: object, type_: type[_T], default: _T) -> _T:
        if not isinstance(value, type_):
            self._report(pointer, Code.WRONG_TYPE, f"a {'string' if type_ is str else 'boolean'} is needed")
            return default
        if isinstance(value, str) and len(value) > self._limits.max_text_chars:
            self._report(pointer, Code.TOO_LONG, f"more than {self._limits.max_text_chars} characters")
        return value

    def _choice(self, pointer: str, value: object, choices: tuple[str, ...]) -> str:
        if isinstance(value, str) and value in choices:
            return value
        hint = self._did_you_mean(str(value), choices) or "one of " + ", ".join(choices)
        self._report(pointer, Code.UNKNOWN_VALUE, f"{value!r} is not known here", hint)
        return choices[0]

    def _seconds(self, pointer: str, value: object, least: int, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self._report(pointer, Code.WRONG_TYPE, "a whole number of seconds is needed")
            return least
        if value > most and least > 0:
            self._report(pointer, Code.WINDOW_TOO_LARGE, f"{value} s, at most {most}")
        elif not least <= value <= most:
            self._report(pointer, Code.OUT_OF_RANGE, f"{value} s, between {least} and {most}")
        return value

    def _match(self, schema: ObservedSchema) -> tuple[str, bool]:
        raw = self._object("match", frozenset({"type"}), frozenset({"unseen"}))
        event_type = self._typed("/match/type", raw.get("type", ""), str, "")
        unseen = self._typed("/match/unseen", raw.get("unseen", False), bool, False)
        if "type" in raw and not event_type:
            self._report("/match/type", Code.UNKNOWN_EVENT_TYPE, "an event type is needed")
        elif event_type and schema.event_types and not unseen and schema.fields_of(event_type) is None:
            hint = (
                self._did_you_mean(event_type, list(schema.event_types))
                or 'accept it with "unseen": true in match'
            )
            message = f"no event of type {event_type!r} was seen"
            self._report("/match/type", Code.UNKNOWN_EVENT_TYPE, message, hint)
        return event_type, unseen

    def _name(self) -> str:
        name = self._raw.get("name", "x")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            hint = "1 to 63 of a-z, 0-9 and -, starting with a letter"
            self._report("/name", Code.WRONG_TYPE, "not a rule name", hint)
            return "x"
        return name

    def _window(self) -> Window | None:
        raw = self._object("window", frozenset({"fn", "over_s", "op", "threshold"}), frozenset({"of"}))
        fn = cast("AggregateFn", self._choice("/window/fn", raw.get("fn", "count"), get_args(AggregateFn)))
        op = cast("CompareOp", self._choice("/window/op", raw.get("op", "ge"), get_args(CompareOp)))
        over_s = self._seconds("/window/over_s", raw.get("over_s", 1), 1, self._limits.max_window_s)
        threshold = raw.get("threshold", 0)
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
            self._report("/window/threshold", Code.WRONG_TYPE, "a number is needed")
            threshold = 0
        elif abs(threshold) > MAX_AGGREGATED:
            self._report("/window/threshold", Code.OUT_OF_RANGE, f"at most {MAX_AGGREGATED:g}")
        of = None
        if "of" in raw:
            of = self._parser.value(raw["of"], "/window/of", "number")
            if fn == "count":
                self._report("/window/of", Code.CONFLICTING_MEMBERS, "count counts events, not values")
        elif fn != "count":
            self._report("/window", Code.MISSING_MEMBER, f"'of' is missing: the {fn} of what?")
        return Window(fn=fn, of=of, over_s=over_s, op=op, threshold=float(threshold))

    def _absence(self) -> int:
        raw = self._object("absence", frozenset({"after_s"}))
        return self._seconds("/absence/after_s", raw.get("after_s", 1), 1, self._limits.max_window_s)

    def _kind_conflicts(self) -> None:
        given = [name for name in ("for_s", "window", "absence") if name in self._raw]
        for name in given[1:]:
            hint = "a rule has at most one of for_s, window, absence"
            self._report(f"/{name}", Code.CONFLICTING_MEMBERS, f"{given[0]} and {name} together", hint)
        if "when" not in self._raw and not {"window", "absence"} & self._raw.keys():
            self._report("", Code.MISSING_MEMBER, "'when' is missing", "only window and absence do without")

    def _group_by(self) -> tuple[str, ...]:
        raw = self._raw.get("group_by", list(DEFAULT_GROUP_BY))
        if not isinstance(raw, list) or not all(isinstance(path, str) for path in raw):
            self._report("/group_by", Code.WRONG_TYPE, "a list of fields is needed")
            return ()
        if len(raw) > self._limits.max_group_fields:
            self._report("/group_by", Code.TOO_LONG, f"at most {self._limits.max_group_fields} fields")
        for index, path in enumerate(raw[: self._limits.max_group_fields]):
            at = pointer_of("/group_by", index)
            if path in raw[:index]:
                self._report(at, Code.CONFLICTING_MEMBERS, f"{path!r} is given twice")
            elif self._parser.path(path, at) and (path == "value" or path.startswith("data.")):
                self._report(at, Code.WRONG_TYPE, "groups are made by text fields, not by value or data")
        return tuple(raw)

    def _incident(self, group_by: tuple[str, ...]) -> IncidentSpec:
        required, optional = frozenset({"severity", "summary"}), frozenset({"dedup_key"})
        raw = self._object("incident", required, optional)
        severity = self._choice("/incident/severity", raw.get("severity", "error"), SEVERITIES)
        summary = self._typed("/incident/summary", raw.get("summary", "x"), str, "")
        names, balanced = placeholders(summary)
        if not balanced:
            self._report(
                "/incident/summary", Code.WRONG_TYPE, "a brace has no partner", "write {{ for a brace"
            )
        for name in names:
            if name == AGGREGATE and "window" in self._raw:
                continue
            self._parser.path(name, "/incident/summary")
        keyed = tuple(dict.fromkeys(("source", *group_by))) if self._is_level() else group_by
        dedup = raw.get("dedup_key", list(keyed))
        if not isinstance(dedup, list) or not all(isinstance(path, str) for path in dedup):
            self._report("/incident/dedup_key", Code.WRONG_TYPE, "a list of group fields is needed")
            dedup = []
        for index, path in enumerate(dedup):
            at = pointer_of("/incident/dedup_key", index)
            if path in keyed and path in dedup[:index]:
                self._report(at, Code.CONFLICTING_MEMBERS, f"{path!r} is given twice")
            elif path not in keyed:
                hint = self._did_you_mean(path, keyed) or "name fields of group_by"
                self._report(at, Code.UNKNOWN_FIELD, f"{path!r} is not a field of the group", hint)
        return IncidentSpec(severity=severity, summary=summary, dedup_key=tuple(dedup))

    def _is_level(self) -> bool:
        return "window" not in self._raw and "absence" not in self._raw

    def _resolve(self) -> Resolve:
        raw = self._object("resolve", frozenset(), frozenset({"auto", "when", "after_s"}))
        if len(raw) > 1:
            hint = "one of auto, when, after_s"
            self._report("/resolve", Code.CONFLICTING_MEMBERS, "one way to resolve, not more", hint)
        auto = self._typed("/resolve/auto", raw.get("auto", True), bool, True)
        mode: ResolveMode = "auto" if auto else "manual"
        for name in ("when", "after_s"):
            if name in raw and (not self._is_level() or "for_s" in self._raw):
                message = f"{name} resolves threshold rules only"
                self._report(f"/resolve/{name}", Code.CONFLICTING_MEMBERS, message)
        when: Condition | None = None
        after_s = None
        if "when" in raw:
            mode = "when"
            when = self._parser.condition(raw["when"], "/resolve/when")
        elif "after_s" in raw:
            mode = "after"
            after_s = self._seconds("/resolve/after_s", raw["after_s"], 1, self._limits.max_for_s)
        return Resolve(mode=mode, when=when, after_s=after_s)

    def _lateness(self) -> int:
        given = self._raw.get("lateness_s", DEFAULT_LATENESS_S)
        return self._seconds("/lateness_s", given, 0, self._limits.max_lateness_s)
