"""The one document that a rule is stored as, its content address, and the difference of two versions."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from sys import maxsize
from typing import TYPE_CHECKING, Any, Literal

from tlsy.rules_engine.domain.ast import (
    SCHEMA,
    And,
    Arithmetic,
    Compare,
    Condition,
    Const,
    Exists,
    Field,
    Member,
    Not,
    Or,
    Resolve,
    Rule,
    Text,
    Value,
    VersionId,
    Window,
)
from tlsy.rules_engine.domain.problems import ObservedSchema, Problem, RuleLimits, pointer_of
from tlsy.rules_engine.domain.validate import validate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsy.rules_engine.domain.events import Scalar

_EXACT = 2.0**53


class NotCanonicalError(ValueError):
    """Stored bytes are not a rule: `problems` says why."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(f"{len(problems)} problems, the first: {problems[0]}")
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Change:
    """One difference of two documents at an RFC 6901 pointer; `old` is None for added, `new` for removed."""

    pointer: str
    kind: Literal["added", "removed", "changed"]
    old: Any
    new: Any


def canonical_json(rule: Rule) -> bytes:
    """The rule with every default written out, keys sorted, no space, whole numbers without a fraction."""
    return json.dumps(
        to_document(rule), ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()


def version_id(rule: Rule) -> VersionId:
    """SHA-256 of the canonical JSON in hex: equal rules have equal ids, whoever wrote them."""
    return VersionId(hashlib.sha256(canonical_json(rule)).hexdigest())


def load_rule(stored: bytes, limits: RuleLimits) -> Rule:
    """The rule of canonical JSON; fields carry their types, so no observed schema is needed.

    What it costs was judged when it was published, by the prices of that day.

    Raises:
        NotCanonicalError: the bytes are not a valid rule within `limits`.
    """
    found = validate(stored, ObservedSchema(), replace(limits, max_cost=maxsize))
    if isinstance(found, list):
        raise NotCanonicalError(found)
    return found


def to_document(rule: Rule) -> dict[str, Any]:
    """The canonical document as JSON values."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "name": rule.name,
        "description": rule.description,
        "match": {"type": rule.event_type, "unseen": rule.unseen},
        "group_by": list(rule.group_by),
        "incident": {
            "severity": rule.incident.severity,
            "summary": rule.incident.summary,
            "dedup_key": list(rule.incident.dedup_key),
        },
        "resolve": _resolve(rule.resolve),
        "lateness_s": rule.lateness_s,
        "enabled": rule.enabled,
    }
    if rule.when is not None:
        document["when"] = condition_document(rule.when)
    if rule.for_s is not None:
        document["for_s"] = rule.for_s
    if rule.window is not None:
        document["window"] = _window(rule.window)
    if rule.absence_s is not None:
        document["absence"] = {"after_s": rule.absence_s}
    return document


def condition_document(node: Condition) -> dict[str, Any]:
    """The document of one condition."""
    if isinstance(node, Compare):
        return {node.op: [value_document(node.left), value_document(node.right)]}
    if isinstance(node, Text):
        return {node.op: [value_document(node.operand), node.pattern]}
    if isinstance(node, Member):
        choices = sorted({_scalar(choice) for choice in node.choices}, key=repr)
        return {node.op: [value_document(node.operand), choices]}
    if isinstance(node, Exists):
        return {"exists": value_document(node.operand)}
    if isinstance(node, Not):
        return {"not": condition_document(node.arg)}
    name = {And: "and", Or: "or"}[type(node)]
    return {name: [condition_document(arg) for arg in node.args]}


def value_document(node: Value) -> Any:
    """The document of one value."""
    if isinstance(node, Const):
        return _scalar(node.value)
    if isinstance(node, Field):
        return {"field": node.path, "type": node.type}
    assert isinstance(node, Arithmetic)  # noqa: S101 - the last of the closed set
    return {node.op: [value_document(arg) for arg in node.args]}


def difference(old: Rule, new: Rule) -> list[Change]:
    """What changed in meaning from `old` to `new`, by pointer; empty if and only if their ids are equal."""
    return list(_compare("", to_document(old), to_document(new)))


def _compare(pointer: str, old: Any, new: Any) -> Iterator[Change]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            at = pointer_of(pointer, key)
            if key not in new:
                yield Change(at, "removed", old[key], None)
            elif key not in old:
                yield Change(at, "added", None, new[key])
            else:
                yield from _compare(at, old[key], new[key])
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            at = pointer_of(pointer, index)
            if index >= len(new):
                yield Change(at, "removed", old[index], None)
            elif index >= len(old):
                yield Change(at, "added", None, new[index])
            else:
                yield from _compare(at, old[index], new[index])
    elif type(old) is not type(new) or old != new:
        yield Change(pointer, "changed", old, new)


def _window(window: Window) -> dict[str, Any]:
    document: dict[str, Any] = {
        "fn": window.fn,
        "over_s": window.over_s,
        "op": window.op,
        "threshold": _scalar(window.threshold),
    }
    if window.of is not None:
        document["of"] = value_document(window.of)
    return document


def _resolve(resolve: Resolve) -> dict[str, Any]:
    if resolve.when is not None:
        return {"when": condition_document(resolve.when)}
    if resolve.after_s is not None:
        return {"after_s": resolve.after_s}
    return {"auto": resolve.mode == "auto"}


def _scalar(value: Scalar) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    return value
