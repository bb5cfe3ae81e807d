from __future__ import annotations

import random
import sys
from collections import Counter

import pytest

from tlsy.rules_engine.domain.ast import Compare, CompareOp, Condition, Const, Field
from tlsy.rules_engine.domain.branches import Task, branches_of, equality
from tlsy.rules_engine.domain.cost import condition_cost

from .rules import compiled, rule

WIDE = 12


def shares_one(number, place):
    """Two rules share one `ne`, and nothing else."""
    return "ne", "site" if place == 0 else "subject", f"{number // 2}" if place == 0 else f"{number}-{place}"


def names_its_neighbours_fields(number, place):
    return "ne", f"labels.f{number * WIDE // 2 + place}", f"{number}"


def has_equalities_of_its_own(number, place):
    return "eq", f"labels.f{place}", f"{number}-{place}"


def calls_to_compile(conjunct, count):
    """How many functions are called; the same in each run, which no time is."""
    rules = []
    for number in range(count):
        tests = [conjunct(number, place) for place in range(WIDE)]
        when = {"and": [{op: [{"field": field}, value]} for op, field, value in tests]}
        rules.append(rule(name=f"r{number}", when=when, incident={"severity": "error", "summary": "x"}))
    calls: Counter[str] = Counter()
    sys.setprofile(lambda _frame, what, _arg: calls.update((what,)))
    try:
        compiled(*rules)
    finally:
        sys.setprofile(None)
    return calls["call"] + calls["c_call"]


@pytest.mark.parametrize(
    "conjunct",
    [shares_one, names_its_neighbours_fields, has_equalities_of_its_own],
    ids=lambda each: each.__name__,
)
def test_four_times_the_rules_are_about_four_times_the_work(conjunct):
    assert calls_to_compile(conjunct, 160) < 4.3 * calls_to_compile(conjunct, 40)


def field_of(conjunct):
    found = equality(conjunct)
    return found[0] if found is not None else None


def greedily(tasks):
    """The branches by definition: everything counted anew for each."""
    branches = []
    while tasks:
        counts = Counter(conjunct for task in tasks for conjunct in task.conjuncts)
        members = Counter(field_of(conjunct) for conjunct in counts)
        families = Counter(field_of(conjunct) for task in tasks for conjunct in task.conjuncts)

        def score(conjunct, counts=counts, members=members, families=families):
            field = field_of(conjunct)
            weight = families[field] if field is not None and members[field] >= 3 else counts[conjunct]
            return weight, counts[conjunct], -condition_cost(conjunct)

        best = max(counts, key=score)
        if score(best)[0] < 2:
            break
        branches.append((best, [task.index for task in tasks if best in task.conjuncts]))
        tasks = [task for task in tasks if best not in task.conjuncts]
    return branches


def some_conjunct(chance: random.Random) -> Condition:
    op: CompareOp = chance.choice(["eq", "eq", "ne"])
    field = Field(chance.choice(["site", "subject", "data.a.b"]), "string")
    return Compare(op, field, Const(f"{chance.randrange(chance.choice([2, 5, 20]))}"))


@pytest.mark.parametrize("seed", range(60))
def test_the_branches_are_those_that_most_rules_share(seed):
    chance = random.Random(seed)
    tasks = []
    for index in range(chance.randrange(2, 30)):
        conjuncts = dict.fromkeys(some_conjunct(chance) for _ in range(chance.randrange(1, 8)))
        tasks.append(Task(index, tuple(conjuncts), "hit", "h0"))
    expected = greedily(tasks)
    made = [(branch.test, [task.index for task in branch.tasks]) for branch in branches_of(tasks)]
    assert made[: len(expected)] == expected
    assert all(len(indexes) == 1 for _, indexes in made[len(expected) :])
