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

if TYPE_CHECKING:
    from collections.abc import Mapping

_KIND: Final[Mapping[RuleKind, int]] = {"threshold": 10, "held": 15, "window": 20, "absence": 15}
_TEXT: Final[Mapping[str, int]] = {"starts_with": 3, "ends_with": 3, "contains": 5, "matches": 25}
_GROUP_FIELD: Final = 2


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
        return _TEXT[node.op] + value_cost(node.operand)
    if isinstance(node, Member):
        return 2 + value_cost(node.operand)
    children = condition_children(node)
    return 1 + sum(condition_cost(child) for child in children) + (0 if children else 3)


def value_cost(node: Value | None) -> int:
    """The bound for one value; a member of `data` costs more, as its path is walked and its type checked."""
    if isinstance(node, Field):
        return 4 + 2 * node.path.count(".") if node.path.startswith("data.") else 2
    if isinstance(node, Arithmetic):
        return 2 + sum(value_cost(arg) for arg in node.args)
    return 0
