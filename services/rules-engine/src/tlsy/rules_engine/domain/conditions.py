"""Conditions and values as Python source.

Names in it are made here; texts and numbers of users never are in it: every constant is bound to a name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tlsy.rules_engine.domain.ast import (
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
    Text,
    Value,
    condition_fields,
)
from tlsy.rules_engine.domain.events import MAX_SEARCHED_CHARS, SEVERITY_RANK, Scalar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

_SYMBOL: Final[Mapping[str, str]] = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_ARITHMETIC: Final[Mapping[str, str]] = {"add": "+", "sub": "-", "mul": "*", "div": "/", "mod": "%"}
_HEADER: Final[Mapping[str, str]] = {
    name: f"e.{name}" for name in ("source", "type", "subject", "site", "value")
}
_READER: Final[Mapping[str, str]] = {
    "number": "data_number",
    "string": "data_string",
    "boolean": "data_boolean",
}


@dataclass(frozen=True, slots=True)
class Key:
    """The key of a group: the values of its fields, in order."""

    fields: tuple[Field, ...]


Load: TypeAlias = Field | Arithmetic | Key
"""What is kept in a local variable: read or computed once, and shared."""


class Names:
    """The constants of one generated function and the names they are bound to; equal constants share one."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._index: dict[tuple[type, Any], str] = {}

    def constant(self, value: Any) -> str:
        """The name of a hashable constant."""
        key = (type(value), value)
        if key not in self._index:
            self._index[key] = self.unique(value)
        return self._index[key]

    def glob(self, pattern: str) -> str:
        """The name of the test for a pattern; one for all that ask for it."""
        key = (re.Pattern, pattern)
        if key not in self._index:
            self._index[key] = self.unique(glob(pattern))
        return self._index[key]

    def unique(self, value: Any) -> str:
        """A name of its own for `value`."""
        self.values.append(value)
        return f"c{len(self.values) - 1}"


class Scope:
    """The locals that are set at one point of the function; a nested block sees its parents'."""

    def __init__(self, names: Names, parent: Scope | None = None) -> None:
        self.names = names
        self._parent = parent
        self._locals: dict[Load, str] = {}
        self._numbers: Iterator[int] = parent._numbers if parent else iter(range(1_000_000))  # noqa: SLF001 - same class

    def nested(self) -> Scope:
        """The scope of a block inside this one."""
        return Scope(self.names, self)

    def find(self, load: Load) -> str | None:
        """The local that holds `load`, if it is set here."""
        found = self._locals.get(load)
        return found if found or self._parent is None else self._parent.find(load)

    def require(self, loads: Iterable[Load]) -> list[str]:
        """The statements that set those of `loads` that are not set yet, operands first."""
        lines: list[str] = []
        for load in loads:
            if self.find(load) is not None:
                continue
            if isinstance(load, Arithmetic):
                lines += self.require(arg for arg in load.args if not isinstance(arg, Const))
            if isinstance(load, Key):
                lines += self.require(load.fields)
            name = f"v{next(self._numbers)}"
            lines += self._load(load, name)
            self._locals[load] = name
        return lines

    def value(self, node: Value | Key) -> str:
        """The expression for a value whose loads are set."""
        if isinstance(node, Const):
            return self.names.constant(node.value)
        found = self.find(node)
        assert found is not None  # noqa: S101 - require() comes before
        return found

    def condition(self, node: Condition) -> str:  # noqa: PLR0911 - one per kind of node
        """The expression for a condition whose loads are set."""
        if isinstance(node, Compare):
            return self._compare(node)
        if isinstance(node, Text):
            return self._text(node)
        if isinstance(node, Member):
            name = self.value(node.operand)
            choices = self.names.constant(frozenset(_constants(node.choices, node.operand)))
            if node.op == "in":
                return f"{name} in {choices}"
            return f"({name} is not None and {name} not in {choices})"
        if isinstance(node, Exists):
            return f"{self.value(node.operand)} is not None"
        if isinstance(node, Not):
            return f"(not {self.condition(node.arg)})"
        word = " and " if isinstance(node, And) else " or "
        return "(" + word.join(self.condition(arg) for arg in node.args) + ")"

    def _compare(self, node: Compare) -> str:
        left, right = self._side(node.left, node.right), self._side(node.right, node.left)
        test = f"{left} {_SYMBOL[node.op]} {right}"
        nullable = [
            name
            for name, side in ((left, node.left), (right, node.right))
            if not isinstance(side, Const) and not _always_present(side)
        ]
        if node.op == "eq" and len(nullable) < 2:  # noqa: PLR2004 - None equals no constant
            return test
        return "(" + " and ".join([*(f"{name} is not None" for name in nullable), test]) + ")"

    def _side(self, node: Value, other: Value) -> str:
        severity = isinstance(other, Field) and other.type == "severity"
        if severity and isinstance(node, Const):
            return self.names.constant(SEVERITY_RANK[str(node.value)])
        return self.value(node)

    def _text(self, node: Text) -> str:
        name = self.value(node.operand)
        # What is searched is searched so far only; texts outside of data are shorter anyway.
        head = f"{name}[:{MAX_SEARCHED_CHARS}]" if node.operand.path.startswith("data.") else name
        test = {
            "starts_with": lambda: f"{name}.startswith({self.names.constant(node.pattern)})",
            "ends_with": lambda: f"{name}.endswith({self.names.constant(node.pattern)})",
            "contains": lambda: f"{self.names.constant(node.pattern)} in {head}",
            "matches": lambda: f"{self.names.glob(node.pattern)}({head})",
        }[node.op]()
        return test if _always_present(node.operand) else f"({name} is not None and {test})"

    def _load(self, load: Load, name: str) -> list[str]:
        if isinstance(load, Key):
            return [f"{name} = (" + "".join(f"{self.value(field)}, " for field in load.fields) + ")"]
        if isinstance(load, Arithmetic):
            return self._arithmetic(load, name)
        head, _, rest = load.path.partition(".")
        if head == "labels":
            return [f"{name} = e.labels.get({self.names.constant(rest)})"]
        if head == "data":
            path = self.names.constant(tuple(rest.split(".")))
            return [f"{name} = {_READER[load.type]}(e.data, {path})"]
        if load.type == "severity":
            return [f"{name} = severity_rank(e.severity)"]
        return [f"{name} = e.{head}" if head == "severity" else f"{name} = {_HEADER[head]}"]

    def _arithmetic(self, load: Arithmetic, name: str) -> list[str]:
        args = [self.value(arg) for arg in load.args]
        nullable = [arg for arg, node in zip(args, load.args, strict=True) if not isinstance(node, Const)]
        absent = " or ".join(f"{arg} is None" for arg in nullable)
        lines = [f"if {absent}:", f"    {name} = None"] if absent else []
        if load.op in {"div", "mod"}:
            lines += [
                f"{'elif' if absent else 'if'} {args[1]} == 0.0:",
                f"    {name} = None",
                "    counters.zero_divisions += 1",
            ]
        if load.op == "abs":
            expression = f"abs({args[0]})"
        elif load.op == "neg":
            expression = f"-{args[0]}"
        else:
            expression = f"{args[0]} {_ARITHMETIC[load.op]} {args[1]}"
        indent = "    " if lines else ""
        lines += ["else:"] if lines else []
        lines += [f"{indent}{name} = {expression}"]
        if load.op in {"add", "sub", "mul", "div"}:
            lines += [f"{indent}if {name} - {name} != 0.0:", f"{indent}    {name} = None"]
        return lines


def loads_of(node: Condition | Value | None) -> tuple[Load, ...]:
    """The loads that a node's own expression uses, operands of arithmetic not included."""
    if isinstance(node, Field | Arithmetic):
        return (node,)
    if isinstance(node, Compare):
        return loads_of(node.left) + loads_of(node.right)
    if isinstance(node, And | Or):
        return tuple(load for arg in node.args for load in loads_of(arg))
    if isinstance(node, Not):
        return loads_of(node.arg)
    return () if node is None or isinstance(node, Const) else condition_fields(node)


def glob(pattern: str) -> Callable[[str], object]:
    """The test whether a text is `pattern`: `*` is any text, `?` any character."""
    first, *middle, last = pattern.split("*") if "*" in pattern else (pattern, "")
    if "?" in pattern:
        return _glob_of_any(pattern)
    if "*" not in pattern:
        return pattern.__eq__
    pieces = tuple(piece for piece in middle if piece)
    ends = len(first) + len(last)

    def fits(text: str) -> bool:
        if len(text) < ends or not text.startswith(first) or not text.endswith(last):
            return False
        at, end = len(first), len(text) - len(last)
        for piece in pieces:
            at = text.find(piece, at, end)
            if at < 0:
                return False
            at += len(piece)
        return True

    return fits


def _glob_of_any(pattern: str) -> Callable[[str], object]:
    """The same with `?`; atomic groups keep matching free of backtracking between stars."""
    pieces = [
        "".join("." if char == "?" else re.escape(char) for char in piece) for piece in pattern.split("*")
    ]
    if len(pieces) == 1:
        return re.compile(pieces[0], re.DOTALL).fullmatch
    first, *middle, last = pieces
    return re.compile(
        first + "".join(f"(?>.*?{piece})" for piece in middle if piece) + (f".*{last}" if last else ".*"),
        re.DOTALL,
    ).fullmatch


def _always_present(node: Value) -> bool:
    """Whether a value can never be missing, so that no test for it is needed."""
    return isinstance(node, Field) and node.path in {"source", "type", "subject", "site"}


def _constants(choices: tuple[Scalar, ...], operand: Field) -> Iterator[Scalar]:
    for choice in choices:
        yield SEVERITY_RANK[str(choice)] if operand.type == "severity" else choice
