"""The rule language as data: what a validated rule document (`tlsy.rule/1`) means.

A rule is exactly one of four kinds: a *threshold* (`when` alone), a *held* condition (`when` and `for_s`), a
*window* (an aggregate compared with a number; `when` filters what is counted) or an *absence*. Every node is
frozen and hashable: equal sub-expressions are equal values, which is how the compiler finds what to share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NewType, TypeAlias

if TYPE_CHECKING:
    from tlsy.rules_engine.domain.events import Scalar, ValueType

SCHEMA: Final = "tlsy.rule/1"

RuleName = NewType("RuleName", str)
VersionId = NewType("VersionId", str)

CompareOp: TypeAlias = Literal["eq", "ne", "lt", "le", "gt", "ge"]
ArithmeticOp: TypeAlias = Literal["add", "sub", "mul", "div", "mod", "neg", "abs"]
TextOp: TypeAlias = Literal["starts_with", "ends_with", "contains", "matches"]
MemberOp: TypeAlias = Literal["in", "not_in"]
AggregateFn: TypeAlias = Literal["count", "sum", "avg", "min", "max"]
ResolveMode: TypeAlias = Literal["auto", "manual", "when", "after"]
RuleKind: TypeAlias = Literal["threshold", "held", "window", "absence"]


@dataclass(frozen=True, slots=True)
class Const:
    """A literal; numbers are doubles."""

    value: Scalar


@dataclass(frozen=True, slots=True)
class Field:
    """A reference to a field of the event, read as `type`; another type at run time reads as missing."""

    path: str
    type: ValueType


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """A number from one (`neg`, `abs`) or two; missing if an operand is, or the result is not finite."""

    op: ArithmeticOp
    args: tuple[Value, ...]


Value: TypeAlias = Const | Field | Arithmetic


@dataclass(frozen=True, slots=True)
class Compare:
    """Two values of one type; false if either is missing. Order exists for numbers and severities."""

    op: CompareOp
    left: Value
    right: Value


@dataclass(frozen=True, slots=True)
class Text:
    """A text field against a literal; `matches` is a glob over the whole text (`*`, `?`)."""

    op: TextOp
    operand: Field
    pattern: str


@dataclass(frozen=True, slots=True)
class Member:
    """Membership in a list of literals; `not_in` of a missing field is false."""

    op: MemberOp
    operand: Field
    choices: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Exists:
    """True if the field is present with its type."""

    operand: Field


@dataclass(frozen=True, slots=True)
class And:
    """True if all are."""

    args: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """True if any is."""

    args: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """True if `arg` is false, also where `arg` is false for a missing operand."""

    arg: Condition


Condition: TypeAlias = Compare | Text | Member | Exists | And | Or | Not


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """`fn` of `of` over the last `over_s` seconds of event time, compared by `op` with `threshold`."""

    fn: AggregateFn
    of: Value | None
    over_s: int
    op: CompareOp
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolve:
    """How a firing group stops: see `docs/rules.md`."""

    mode: ResolveMode = "auto"
    when: Condition | None = None
    after_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentSpec:
    """What the incident says; `dedup_key` names group fields, all of them by default."""

    severity: str
    summary: str
    dedup_key: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One version of a rule, valid by construction: only the validator makes them."""

    name: RuleName
    description: str
    event_type: str
    unseen: bool
    when: Condition | None
    for_s: int | None
    window: Window | None
    absence_s: int | None
    group_by: tuple[str, ...]
    incident: IncidentSpec
    resolve: Resolve
    lateness_s: int
    enabled: bool

    @property
    def kind(self) -> RuleKind:
        """Which of the four kinds this rule is."""
        if self.window is not None:
            return "window"
        if self.absence_s is not None:
            return "absence"
        return "threshold" if self.for_s is None else "held"

    @property
    def group_fields(self) -> tuple[str, ...]:
        """The fields of the group key; threshold and held rules judge each source by itself: it is first."""
        if self.kind in {"threshold", "held"}:
            return ("source", *(path for path in self.group_by if path != "source"))
        return self.group_by


def condition_children(node: Condition) -> tuple[Condition, ...]:
    """The conditions directly below `node`."""
    if isinstance(node, And | Or):
        return node.args
    return (node.arg,) if isinstance(node, Not) else ()


def value_fields(node: Value | None) -> tuple[Field, ...]:
    """Every field that a value reads, in order, with repetitions."""
    if isinstance(node, Field):
        return (node,)
    if isinstance(node, Arithmetic):
        return tuple(field for arg in node.args for field in value_fields(arg))
    return ()


def condition_fields(node: Condition | None) -> tuple[Field, ...]:
    """Every field that a condition reads, in order, with repetitions."""
    if node is None:
        return ()
    if isinstance(node, Compare):
        return value_fields(node.left) + value_fields(node.right)
    if isinstance(node, Text | Member | Exists):
        return (node.operand,)
    return tuple(field for child in condition_children(node) for field in condition_fields(child))
