"""The conjuncts of many rules as a tree: which to test first, and which siblings one index can serve."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tlsy.rules_engine.domain.ast import And, Compare, CompareOp, Condition, Const, Field, Value
from tlsy.rules_engine.domain.conditions import Load, loads_of
from tlsy.rules_engine.domain.cost import condition_cost

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHARED: Final = 2  # rules that make a conjunct worth a branch of its own
_INDEXED: Final = 3  # siblings that make an index worth its look-up
_MIRRORED: Final[Mapping[CompareOp, CompareOp]] = {
    "lt": "gt",
    "le": "ge",
    "gt": "lt",
    "ge": "le",
    "eq": "eq",
    "ne": "ne",
}


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done when the remaining conjuncts hold: `kind` for the rule of this index."""

    index: int
    conjuncts: tuple[Condition, ...]
    kind: str
    hits: str

    def without(self, conjunct: Condition) -> Task:
        """The task once `conjunct` is known to hold."""
        rest = tuple(other for other in self.conjuncts if other != conjunct)
        return Task(self.index, rest, self.kind, self.hits)


@dataclass(frozen=True, slots=True)
class Branch:
    """Tasks below one conjunct."""

    test: Condition
    tasks: tuple[Task, ...]


def conjuncts_of(condition: Condition | None) -> tuple[Condition, ...]:
    """The conditions that must all hold, each once, constants on the right."""
    if condition is None:
        return ()
    if isinstance(condition, And):
        flat = (conjunct for arg in condition.args for conjunct in conjuncts_of(arg))
        return tuple(dict.fromkeys(flat))
    if isinstance(condition, Compare) and isinstance(condition.left, Const):
        return (Compare(_MIRRORED[condition.op], condition.right, condition.left),)
    return (condition,)


def branches_of(tasks: list[Task]) -> list[Branch]:
    """Tasks grouped greedily by the conjunct that most of them share; what shares nothing stands alone."""
    branches: list[Branch] = []
    while tasks:
        counts = Counter(conjunct for task in tasks for conjunct in task.conjuncts)
        best = _best(counts)
        if best is None:
            break
        branches.append(Branch(best, tuple(task.without(best) for task in tasks if best in task.conjuncts)))
        tasks = [task for task in tasks if best not in task.conjuncts]
    for task in tasks:
        test = min(
            task.conjuncts, key=lambda conjunct: (equality(conjunct) is None, condition_cost(conjunct))
        )
        branches.append(Branch(test, (task.without(test),)))
    return branches


def _best(counts: Counter[Condition]) -> Condition | None:
    """The conjunct to branch on: the most shared; equalities that one index serves count together."""
    families: Counter[Field] = Counter()
    members: Counter[Field] = Counter()
    for conjunct, count in counts.items():
        if (found := equality(conjunct)) is not None:
            families[found[0]] += count
            members[found[0]] += 1

    def score(conjunct: Condition) -> tuple[int, int, int]:
        found = equality(conjunct)
        indexed = found is not None and members[found[0]] >= _INDEXED
        weight = families[found[0]] if found is not None and indexed else counts[conjunct]
        return weight, counts[conjunct], -condition_cost(conjunct)

    best = max(counts, key=score)
    return best if score(best)[0] >= _SHARED else None


def bundles_of(branches: list[Branch]) -> list[list[Branch]]:
    """Branches that one index can serve, together; the others alone."""
    by_index: dict[Any, list[Branch]] = {}
    for number, branch in enumerate(branches):
        equal, ordered = equality(branch.test), order(branch.test)
        key: Any = number
        if equal is not None:
            key = ("eq", equal[0])
        elif ordered is not None and only_hits(branch):
            key = (ordered[0], ordered[1], branch.tasks[0].hits)
        by_index.setdefault(key, []).append(branch)
    found: list[list[Branch]] = []
    for bundle in by_index.values():
        found += [bundle] if len(bundle) >= _INDEXED else [[branch] for branch in bundle]
    return found


def only_hits(branch: Branch) -> bool:
    """Whether all that is left below is to report rules in one list."""
    lists = {task.hits for task in branch.tasks}
    return len(lists) == 1 and all(task.kind == "hit" and not task.conjuncts for task in branch.tasks)


def equality(test: Condition | None) -> tuple[Field, Any] | None:
    """`field == constant` of text or number."""
    if not isinstance(test, Compare) or test.op != "eq" or not isinstance(test.right, Const):
        return None
    left = test.left
    return (left, test.right.value) if isinstance(left, Field) and left.type in {"string", "number"} else None


def equality_of(test: Condition | None) -> tuple[Field, Any]:
    """The same of a test that is known to be one."""
    found = equality(test)
    assert found is not None  # noqa: S101 - the bundle was made of equalities
    return found


def order(test: Condition | None) -> tuple[str, Value, Any] | None:
    """`value op constant` of numbers."""
    if not isinstance(test, Compare) or test.op in {"eq", "ne"} or isinstance(test.left, Const):
        return None
    right = test.right
    numeric = isinstance(right, Const) and isinstance(right.value, float)
    return (test.op, test.left, right.value) if isinstance(right, Const) and numeric else None


def order_of(test: Condition | None) -> tuple[str, Value, Any]:
    """The same of a test that is known to be one."""
    found = order(test)
    assert found is not None  # noqa: S101 - the bundle was made of orders
    return found


def all_loads(branch: Branch) -> dict[Load, None]:
    """What the branch needs anywhere, in order."""
    loads = list(loads_of(branch.test))
    loads += [load for task in branch.tasks for test in task.conjuncts for load in loads_of(test)]
    return dict.fromkeys(loads)


def shared_loads(branches: list[Branch]) -> list[Load]:
    """What more than one of the branches needs."""
    counts = Counter(load for branch in branches for load in all_loads(branch))
    return [load for load, count in counts.items() if count > 1]
