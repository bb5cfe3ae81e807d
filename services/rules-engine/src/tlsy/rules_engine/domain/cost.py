"""What judging one event by a rule may cost, in units of about 20 ns: an upper bound, known beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlsy.rules_engine.domain.ast import (
    Arithmetic,
    Compare,
    Condition,
    Field,
    Member,
    Rule,
    RuleKind,
    Text,
    Value,
    condition_children,
)
from tlsy.rules_engine.domain.events import MAX_HEADER_CHARS, MAX_SEARCHED_CHARS

if TYPE_CHECKING:
    from collections.abc import Mapping

_KIND: Final[Mapping[RuleKind, int]] = {"threshold": 10, "held": 15, "window": 20, "absence": 15}
_GROUP_FIELD: Final = 2
#: Characters searched per unit, and characters of a pattern that make each cost as much again: measured where
#: the pattern is all but found everywhere.
_SEARCHED: Final = 5
_NEEDLE: Final = 32
_SLOWEST_NEEDLE: Final = 256
#: The same where a pattern has `?`: there a unit is one character.
_NEEDLE_ANY: Final = 8


def rule_cost(rule: Rule) -> int:
    """The bound for one event of the rule's type, every branch taken."""
    conditions = condition_cost(rule.when) + condition_cost(rule.resolve.when)
    aggregate = value_cost(rule.window.of) if rule.window else 0
    return _KIND[rule.kind] + conditions + aggregate + _GROUP_FIELD * len(rule.group_fields)


def condition_cost(node: Condition | None) -> int:
    """The bound for one condition, short circuits not taken."""
    if node is None:
        return 0
    if isinstance(node, Compare):
        return 1 + value_cost(node.left) + value_cost(node.right)
    if isinstance(node, Text):
        return text_cost(node) + value_cost(node.operand)
    if isinstance(node, Member):
        return 2 + value_cost(node.operand)
    children = condition_children(node)
    return 1 + sum(condition_cost(child) for child in children) + (0 if children else 3)


def text_cost(node: Text) -> int:
    """The bound for a test of text: what is searched costs by the longest text that may have to be read."""
    if node.op in {"starts_with", "ends_with"}:
        return 3
    most = MAX_SEARCHED_CHARS if node.operand.path.startswith("data.") else MAX_HEADER_CHARS
    pieces = [node.pattern] if node.op == "contains" else node.pattern.split("*")
    longest = min(max(map(len, pieces)), _SLOWEST_NEEDLE)
    if node.op == "matches" and not any(pieces[1:-1]) and not ("?" in node.pattern and any(pieces[1:])):
        return 15
    if node.op == "matches" and "?" in node.pattern:
        return 10 + most * (_NEEDLE_ANY + longest) // _NEEDLE_ANY
    return 5 + 2 * len(pieces) + most * (_NEEDLE + longest) // (_SEARCHED * _NEEDLE)


def value_cost(node: Value | None) -> int:
    """The bound for one value; a member of `data` costs more, as its path is walked and its type checked."""
    if isinstance(node, Field):
        return 4 + 2 * node.path.count(".") if node.path.startswith("data.") else 2
    if isinstance(node, Arithmetic):
        return 2 + sum(value_cost(arg) for arg in node.args)
    return 0
