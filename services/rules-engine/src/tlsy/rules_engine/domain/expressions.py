"""Parsing and typing of conditions and values, collecting every problem instead of stopping at the first.

A node is an object with one member, the operator: `{"gt": [{"field": "value"}, 90]}`. A failed node parses to
None and its siblings are still read. Types are static: a `data.` field takes its declared type, else the one
type seen for it, else the type its neighbour asks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast, get_args

from tlsy.rules_engine.domain.ast import (
    And,
    Arithmetic,
    ArithmeticOp,
    Compare,
    CompareOp,
    Condition,
    Const,
    Exists,
    Field,
    Member,
    MemberOp,
    Not,
    Or,
    Text,
    TextOp,
    Value,
)
from tlsy.rules_engine.domain.events import HEADER_FIELDS, SEVERITY_RANK, Scalar, ValueType
from tlsy.rules_engine.domain.problems import (
    Code,
    EnoughProblems,
    Report,
    RuleLimits,
    SeenField,
    pointer_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

COMPARE_OPS: Final = frozenset(get_args(CompareOp))
ARITHMETIC_OPS: Final = frozenset(get_args(ArithmeticOp))
TEXT_OPS: Final = frozenset(get_args(TextOp))
MEMBER_OPS: Final = frozenset(get_args(MemberOp))
_EQUALITY: Final = frozenset({"eq", "ne"})
_UNARY: Final = frozenset({"neg", "abs"})
_CONDITION_OPS: Final = COMPARE_OPS | TEXT_OPS | MEMBER_OPS | {"and", "or", "not", "exists"}
_VALUE_OPS: Final = ARITHMETIC_OPS | {"field"}
_MAX_STARS: Final = 8
_ANY_TYPE: Final = None


class ExpressionParser:
    """Parses the expressions of one rule and reports; with too many nodes it raises EnoughProblems.

    `seen` holds the fields of the rule's event type, or None when nothing may be refused for being unseen.
    """

    def __init__(
        self,
        report: Report,
        limits: RuleLimits,
        seen: Mapping[str, SeenField] | None,
    ) -> None:
        self.report = report.add
        self._did_you_mean = report.did_you_mean
        self._limits = limits
        self._seen = seen
        self._nodes = 0

    def condition(  # noqa: PLR0911 - one per kind of node, after the refusals
        self, node: object, pointer: str, depth: int = 1
    ) -> Condition | None:
        """The condition at `pointer`, or None after reporting why not."""
        entry = self._operator(node, pointer, depth, _CONDITION_OPS, "a condition")
        if entry is None:
            return None
        op, args = entry
        at = pointer_of(pointer, op)
        if op in {"and", "or"}:
            return self._junction(op, args, at, depth)
        if op == "not":
            inner = self.condition(args, at, depth + 1)
            return None if inner is None else Not(inner)
        if op == "exists":
            operand = self.field(args, at, _ANY_TYPE)
            return None if operand is None else Exists(operand)
        pair = self._arguments(op, args, at, 2)
        if pair is None:
            return None
        if op in COMPARE_OPS:
            return self._compare(cast("CompareOp", op), pair, at, depth)
        if op in TEXT_OPS:
            return self._text(cast("TextOp", op), pair, at)
        return self._member(cast("MemberOp", op), pair, at)

    def value(self, node: object, pointer: str, expected: ValueType | None, depth: int = 1) -> Value | None:
        """The value at `pointer`; `expected` types what would otherwise be ambiguous and is then checked."""
        if isinstance(node, (str, bool, int, float)):
            self._count()
            return self._constant(node, pointer, expected)
        entry = self._operator(node, pointer, depth, _VALUE_OPS, "a value")
        if entry is None:
            return None
        op, args = entry
        if op == "field":
            return self.field(node, pointer, expected)
        if expected not in {None, "number"}:
            self.report(pointer, Code.WRONG_TYPE, f"{op} is a number where a {expected} is needed")
            return None
        return self._arithmetic(cast("ArithmeticOp", op), args, pointer_of(pointer, op), depth)

    def field(self, node: object, pointer: str, expected: ValueType | None) -> Field | None:
        """The reference `{"field": path, "type"?: t}`; `expected` is the type that its place asks for."""
        self._count()
        if not isinstance(node, dict) or not isinstance(node.get("field"), str):
            self.report(pointer, Code.WRONG_TYPE, "a field is needed", 'write {"field": "labels.disk"}')
            return None
        for extra in node.keys() - {"field", "type"}:
            self.report(pointer_of(pointer, extra), Code.UNKNOWN_MEMBER, f"a field has no member {extra!r}")
        path = node["field"]
        at = pointer_of(pointer, "field")
        if not self.path(path, at):
            return None
        type_ = self._field_type(node, path, pointer, expected)
        if type_ is None:
            return None
        if expected is not None and type_ != expected and not (type_ == "severity" and expected == "string"):
            self.report(at, Code.WRONG_TYPE, f"{path} is a {type_} where a {expected} is needed")
            return None
        return Field(path, type_)

    def path(self, path: str, pointer: str) -> bool:
        """Whether `path` names a field that this event type can have; reports where it does not."""
        head, dot, rest = path.partition(".")
        if not dot and head in HEADER_FIELDS:
            return True
        well_formed = head in {"labels", "data"} and rest and len(path) <= self._limits.max_text_chars
        if not well_formed or (head == "data" and "" in rest.split(".")):
            hint = self._did_you_mean(path, [*HEADER_FIELDS, *(self._seen or ())])
            self.report(pointer, Code.UNKNOWN_FIELD, f"{path!r} is not a field of an event", hint)
            return False
        if self._seen is not None and path not in self._seen:
            hint = (
                self._did_you_mean(path, [*HEADER_FIELDS, *self._seen])
                or 'accept it with "unseen": true in match'
            )
            self.report(pointer, Code.UNKNOWN_FIELD, f"{path!r} was never seen in this event type", hint)
            return False
        return True

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > self._limits.max_nodes:
            self.report("", Code.TOO_MANY_NODES, f"more than {self._limits.max_nodes} nodes")
            raise EnoughProblems

    def _field_type(
        self, node: dict[str, Any], path: str, pointer: str, expected: ValueType | None
    ) -> ValueType | None:
        declared = node.get("type")
        known = get_args(ValueType)
        if declared is not None and declared not in known:
            hint = self._did_you_mean(str(declared), known)
            self.report(pointer_of(pointer, "type"), Code.UNKNOWN_VALUE, f"{declared!r} is not a type", hint)
            return None
        seen = self._types(path)
        only = next(iter(seen)) if len(seen) == 1 else None
        chosen = cast("ValueType | None", declared or only or expected)
        if chosen is None:
            hint = 'add "type": "number", "string" or "boolean"'
            self.report(pointer, Code.FIELD_TYPE_UNKNOWN, f"the type of {path} is not known", hint)
            return None
        if (seen and chosen not in seen) or (chosen == "severity" and path != "severity"):
            names = " or ".join(sorted(seen)) or "another type"
            self.report(pointer, Code.FIELD_TYPE_CONFLICT, f"{path} is {names}, not {chosen}")
            return None
        return chosen

    def _operator(
        self, node: object, pointer: str, depth: int, known: frozenset[str], what: str
    ) -> tuple[str, Any] | None:
        self._count()
        if depth > self._limits.max_depth:
            self.report(pointer, Code.TOO_DEEP, f"nested more than {self._limits.max_depth} levels")
            return None
        if not isinstance(node, dict):
            self.report(pointer, Code.WRONG_TYPE, f"{what} is needed", 'write {"<operator>": …}')
            return None
        names = set(node) - ({"type"} if "field" in node else set())
        if len(names) != 1:
            self.report(pointer, Code.WRONG_ARITY, f"{what} has exactly one operator, not {len(names)}")
            return None
        op = str(next(iter(names)))
        if op not in known:
            hint = self._did_you_mean(op, sorted(known))
            self.report(pointer_of(pointer, op), Code.UNKNOWN_OPERATOR, f"{op!r} does not make {what}", hint)
            return None
        return op, node[op]

    def _arguments(self, op: str, args: object, pointer: str, count: int) -> list[Any] | None:
        if isinstance(args, list) and len(args) == count:
            return args
        self.report(pointer, Code.WRONG_ARITY, f"{op} takes a list of {count}")
        return None

    def _junction(self, op: str, args: object, pointer: str, depth: int) -> Condition | None:
        if not isinstance(args, list) or not args:
            self.report(pointer, Code.WRONG_ARITY, f"{op} takes a list of one or more conditions")
            return None
        parsed = [
            self.condition(arg, pointer_of(pointer, index), depth + 1) for index, arg in enumerate(args)
        ]
        found = tuple(arg for arg in parsed if arg is not None)
        if len(found) < len(parsed):
            return None
        return And(found) if op == "and" else Or(found)

    def _compare(self, op: CompareOp, args: list[Any], pointer: str, depth: int) -> Condition | None:
        if self._other_type_beside(args, pointer):
            return None
        wanted = _type_of_raw(args[0]) or _type_of_raw(args[1]) or ("number" if op not in _EQUALITY else None)
        left = self.value(args[0], pointer_of(pointer, 0), wanted, depth + 1)
        right = self.value(args[1], pointer_of(pointer, 1), wanted, depth + 1)
        if left is None or right is None:
            return None
        types = {static_type(left), static_type(right)}
        if "severity" in types:
            return self._compare_severity(op, left, right, pointer)
        if len(types) > 1:
            names = " with a ".join(sorted(types))
            self.report(pointer, Code.WRONG_TYPE, f"{op} compares a {names}")
            return None
        if op not in _EQUALITY and types != {"number"}:
            self.report(pointer, Code.WRONG_TYPE, f"{op} orders numbers and severities, not a {types.pop()}")
            return None
        return Compare(op, left, right)

    def _other_type_beside(self, args: list[Any], pointer: str) -> bool:
        """Whether a literal is of another type than the known field beside it; reported at the literal."""
        for node, index in ((args[0], 1), (args[1], 0)):
            path = node["field"] if isinstance(node, dict) and node.keys() == {"field"} else None
            if not isinstance(path, str) or not (path in HEADER_FIELDS or path in (self._seen or ())):
                continue
            type_ = None if isinstance(args[index], dict) else _type_of_raw(args[index])
            types = self._types(path)
            if not type_ or len(types) != 1 or type_ in types:
                continue
            if type_ != "string" or "severity" not in types:
                message = f"{path} is a {next(iter(types))}, which is not compared with a {type_}"
                self.report(pointer_of(pointer, index), Code.WRONG_TYPE, message)
                return True
        return False

    def _types(self, path: str) -> frozenset[ValueType]:
        """What a field is always, or was seen as; where nothing may be refused for being unseen, nothing."""
        fixed = HEADER_FIELDS.get(path) or ("string" if path.startswith("labels.") else None)
        return frozenset({fixed}) if fixed else self._seen[path].types if self._seen else frozenset()

    def _compare_severity(self, op: CompareOp, left: Value, right: Value, pointer: str) -> Condition | None:
        for index, side in enumerate((left, right)):
            if isinstance(side, Const) and side.value not in SEVERITY_RANK:
                hint = self._did_you_mean(str(side.value), list(SEVERITY_RANK)) or "one of " + ", ".join(
                    SEVERITY_RANK
                )
                message = f"{side.value!r} is not a severity"
                self.report(pointer_of(pointer, index), Code.UNKNOWN_VALUE, message, hint)
                return None
            if not isinstance(side, Const) and static_type(side) != "severity":
                message = f"a severity is compared with a {static_type(side)}"
                self.report(pointer_of(pointer, index), Code.WRONG_TYPE, message)
                return None
        return Compare(op, left, right)

    def _text(self, op: TextOp, args: list[Any], pointer: str) -> Condition | None:
        operand = self.field(args[0], pointer_of(pointer, 0), "string")
        if operand is not None and operand.type == "severity":
            hint = 'compare it: {"ge": [{"field": "severity"}, "error"]}'
            at = pointer_of(pointer_of(pointer, 0), "field")
            self.report(at, Code.WRONG_TYPE, f"severity is a rank, {op} takes text", hint)
            operand = None
        pattern = args[1]
        at = pointer_of(pointer, 1)
        if not isinstance(pattern, str):
            self.report(at, Code.WRONG_TYPE, f"{op} takes literal text")
            return None
        self._count()
        if len(pattern) > self._limits.max_text_chars:
            self.report(at, Code.TOO_LONG, f"more than {self._limits.max_text_chars} characters")
            return None
        if op == "matches" and pattern.count("*") > _MAX_STARS:
            self.report(at, Code.TOO_COSTLY, f"a pattern has at most {_MAX_STARS} stars")
            return None
        return None if operand is None else Text(op, operand, pattern)

    def _member(self, op: MemberOp, args: list[Any], pointer: str) -> Condition | None:
        choices = args[1]
        at = pointer_of(pointer, 1)
        if not isinstance(choices, list) or not choices:
            self.report(at, Code.WRONG_TYPE, f"{op} takes a list of one or more literals")
            return None
        if len(choices) > self._limits.max_choices:
            self.report(at, Code.TOO_LONG, f"at most {self._limits.max_choices} choices")
            return None
        operand = self.field(args[0], pointer_of(pointer, 0), _type_of_raw(choices[0]))
        self._count()
        if operand is None:
            return None
        found: list[Scalar] = []
        for index, choice in enumerate(choices):
            literal = self._constant(choice, pointer_of(at, index), operand.type)
            if literal is not None:
                found.append(literal.value)
        return Member(op, operand, tuple(found)) if len(found) == len(choices) else None

    def _constant(self, node: object, pointer: str, expected: ValueType | None) -> Const | None:
        # An object would be arithmetic: a value, but no literal.
        type_ = None if isinstance(node, dict) else _type_of_raw(node)
        if expected == "severity" and (not isinstance(node, str) or node not in SEVERITY_RANK):
            hint = "one of " + ", ".join(SEVERITY_RANK)
            self.report(pointer, Code.UNKNOWN_VALUE, f"{node!r} is not a severity", hint)
            return None
        if type_ is None or (expected not in {None, "severity"} and type_ != expected):
            self.report(pointer, Code.WRONG_TYPE, f"a {expected or 'literal'} is needed")
            return None
        if isinstance(node, str) and len(node) > self._limits.max_text_chars:
            self.report(pointer, Code.TOO_LONG, f"more than {self._limits.max_text_chars} characters")
            return None
        return Const(float(cast("float", node)) if type_ == "number" else cast("Scalar", node))

    def _arithmetic(self, op: ArithmeticOp, args: object, pointer: str, depth: int) -> Value | None:
        alone = op in _UNARY and not isinstance(args, list)
        count = 1 if op in _UNARY else 2
        checked = self._arguments(op, [args] if alone else args, pointer, count)
        if checked is None:
            return None
        values = [
            self.value(arg, pointer if alone else pointer_of(pointer, index), "number", depth + 1)
            for index, arg in enumerate(checked)
        ]
        if op in {"div", "mod"} and isinstance(values[1], Const) and values[1].value == 0:
            self.report(pointer_of(pointer, 1), Code.DIVISION_BY_ZERO, f"{op} by the constant zero")
            return None
        found = tuple(value for value in values if value is not None)
        return Arithmetic(op, found) if len(found) == count else None


def static_type(value: Value) -> ValueType:
    """The type a value has whenever it is present."""
    if isinstance(value, Field):
        return value.type
    if isinstance(value, Const):
        return _type_of_raw(value.value) or "number"
    return "number"


def _type_of_raw(node: object) -> ValueType | None:
    """The type of a literal or of an arithmetic node, None for what is not one."""
    if isinstance(node, bool):
        return "boolean"
    if isinstance(node, (int, float)):
        return "number"
    if isinstance(node, dict):
        return "number" if node.keys() & ARITHMETIC_OPS else None
    return "string" if isinstance(node, str) else None
