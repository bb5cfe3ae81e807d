"""The conjuncts of many rules as a tree: which to test first, and which siblings one index can serve."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
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
    if len(tasks) > 1:
        shares = _Shares(tasks)
        while (best := shares.best()) is not None:
            branches.append(Branch(best, tuple(task.without(best) for task in shares.take(best))))
        tasks = shares.left()
    for task in tasks:
        test = min(
            task.conjuncts, key=lambda conjunct: (equality(conjunct) is None, condition_cost(conjunct))
        )
        branches.append(Branch(test, (task.without(test),)))
    return branches


@dataclass(slots=True)
class _Share:
    """A conjunct, and the tasks not taken yet that have it: `count`, the first at `first` of `places`."""

    conjunct: Condition
    cost: int
    family: _Family
    places: list[tuple[int, int]]
    count: int = 0
    first: int = 0

    def rank(self) -> tuple[int, int, int, int]:
        """The lower, the sooner it is branched on; it never falls, as tasks are only taken."""
        task, position = self.places[self.first]
        return (-self.count, self.cost, task, position)


@dataclass(slots=True)
class _Family:
    """Conjuncts that are weighed together: the equalities of one field, for an index; or all others.

    Attributes:
        count: of tasks not taken yet, once for each conjunct here that they have.
        members: that tasks not taken yet have.
        heap: ranks of `shares` as they were, each with its number.
    """

    field: Field | None
    shares: list[_Share]
    heap: list[tuple[tuple[int, int, int, int], int]]
    count: int = 0
    members: int = 0

    def best(self) -> _Share | None:
        """The share with the lowest rank."""
        heap = self.heap
        while heap:
            rank, number = heap[0]
            share = self.shares[number]
            if not share.count:
                heappop(heap)
            elif (now := share.rank()) != rank:
                heapreplace(heap, (now, number))
            else:
                return share
        return None

    def rank(self) -> tuple[int, ...] | None:
        """That of its best share, after the weight; None if nothing is left. It never falls either."""
        best = self.best()
        if best is None:
            return None
        indexed = self.field is not None and self.members >= _INDEXED
        return (-(self.count if indexed else best.count), *best.rank())


class _Shares:
    """Which conjunct is the best to branch on: the most shared; equalities of one index count together.

    Counted once. Tasks that are taken only make ranks worse, so the best is the first of a heap whose rank is
    still what it was: each look at another one is paid for by a task that was taken.
    """

    def __init__(self, tasks: list[Task]) -> None:
        self._tasks: dict[int, Task] = dict(enumerate(tasks))
        self._of_task: dict[int, list[_Share]] = {}
        self._shares: dict[Condition, _Share] = {}
        families: dict[Field | None, _Family] = {}
        for number, task in self._tasks.items():
            mine = self._of_task[number] = []
            for position, conjunct in enumerate(task.conjuncts):
                share = self._shares.get(conjunct)
                if share is None:
                    share = self._shares[conjunct] = _new_share(conjunct, families)
                share.places.append((number, position))
                share.count += 1
                share.family.count += 1
                mine.append(share)
        self._families = list(families.values())
        for family in self._families:
            family.members = len(family.shares)
            family.heap = [(share.rank(), number) for number, share in enumerate(family.shares)]
            heapify(family.heap)
        self._heap = [(family.rank() or (), number) for number, family in enumerate(self._families)]
        heapify(self._heap)

    def best(self) -> Condition | None:
        """The best one that is shared at all."""
        heap = self._heap
        while heap:
            rank, number = heap[0]
            now = self._families[number].rank()
            if now is None:
                heappop(heap)
            elif now != rank:
                heapreplace(heap, (now, number))
            else:
                best = self._families[number].best()
                return best.conjunct if best is not None and -now[0] >= _SHARED else None
        return None

    def take(self, conjunct: Condition) -> list[Task]:
        """The tasks not taken yet that have it, in order."""
        places = self._shares[conjunct].places
        return [self._taken(number) for number, _ in places if number in self._tasks]

    def left(self) -> list[Task]:
        """The tasks not taken yet, in order."""
        return list(self._tasks.values())

    def _taken(self, number: int) -> Task:
        task = self._tasks.pop(number)
        for share in self._of_task[number]:
            share.count -= 1
            share.family.count -= 1
            share.family.members -= not share.count
            while share.count and share.places[share.first][0] not in self._tasks:
                share.first += 1
        return task


def _new_share(conjunct: Condition, families: dict[Field | None, _Family]) -> _Share:
    found = equality(conjunct)
    field = None if found is None else found[0]
    family = families.setdefault(field, _Family(field, [], []))
    share = _Share(conjunct, condition_cost(conjunct), family, [])
    family.shares.append(share)
    return share


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
