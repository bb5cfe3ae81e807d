from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tlsy.rules_engine.domain.canonical import to_document, version_id
from tlsy.rules_engine.domain.compiler import compile_rules
from tlsy.rules_engine.domain.engine import Engine, EngineLimits
from tlsy.rules_engine.domain.events import Event
from tlsy.rules_engine.domain.problems import ObservedSchema, RuleLimits
from tlsy.rules_engine.domain.validate import validate

from .reference import Reference
from .rules import document
from .worlds import ANYTHING, START_US, events, field, worlds

S = 1_000_000
LIMITS = EngineLimits(idle_us=10 * S, restart_grace_us=7 * S)
EXAMPLES = int(os.environ.get("TLSY_ORACLE_EXAMPLES", "120"))


def rule_of(document):
    rule = validate(document, ObservedSchema(), RuleLimits())
    assert not isinstance(rule, list), rule
    return rule


def as_given(event):
    """The event as evaluation hands it on: with its data as bytes."""
    data = event["data"]
    return Event(**event | {"data": None if data is None else json.dumps(data).encode()})


def by_group(transitions):
    found: dict[tuple[str, ...], list[tuple[object, ...]]] = {}
    for key, *rest in transitions:
        found.setdefault(key, []).append(tuple(rest))
    return found


def of_engine(transitions):
    return by_group(((t.rule, *t.group), t.kind, t.at_us, t.operands, t.reason) for t in transitions)


class Stored:
    """A table of state rows: what every call returns is written, nothing else."""

    def __init__(self):
        self.rows = {}

    def write(self, rows):
        for row in rows:
            if row.payload is None:
                self.rows.pop((row.owner, row.key), None)
            else:
                self.rows[row.owner, row.key] = row


@settings(
    max_examples=EXAMPLES,
    report_multiple_bugs=False,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(worlds())
def test_on_random_rules_and_streams_both_report_the_same_transitions(world):
    documents, calls = world
    rules = [rule_of(document) for document in documents]
    compiled = compile_rules((version_id(rule), rule) for rule in rules)
    reference = Reference({rule.name: to_document(rule) for rule in rules}, idle_s=10, grace_s=7)
    engine, stored, since_us = Engine(compiled, LIMITS), Stored(), -LIMITS.restart_grace_us
    for call, batch, now_us in calls:
        if call == "apply":
            effects = engine.apply([as_given(event) for event in batch], now_us)
            expected = reference.apply(batch, now_us)
        elif call == "advance":
            due_us = engine.next_deadline_us()
            effects = engine.whole(engine.advancing(now_us, 1))
            expected = reference.advance(now_us)
            assert not expected or (due_us is not None and due_us <= now_us)
        else:
            if call == "restart":
                since_us = now_us
                reference.restart(now_us)
            else:
                reference.reload()
            engine = Engine(compiled, LIMITS)
            assert len(list(engine.loading(stored.rows.values(), since_us, 1))) >= len(stored.rows)
            continue
        stored.write(effects.rows)
        assert of_engine(effects.transitions) == by_group(expected)
        dumped = {(row.owner, row.key): row for row in engine.dump()}
        assert dumped.keys() == stored.rows.keys()


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(worlds())
def test_a_table_too_small_for_its_sources_can_always_be_loaded(world):
    documents, calls = world
    compiled = compile_rules((version_id(rule), rule) for rule in map(rule_of, documents))
    small = replace(LIMITS, max_sources=1)
    engine, stored = Engine(compiled, small), Stored()
    for call, batch, now_us in calls:
        made = engine.apply([as_given(event) for event in batch], now_us) if call == "apply" else None
        stored.write((made or engine.advance(now_us)).rows)
        engine = Engine(compiled, small)
        engine.load(stored.rows.values(), now_us)
        assert {(row.owner, row.key) for row in engine.dump()} == stored.rows.keys()


def is_label(number, text):
    return {"eq": [field(f"labels.k{number}", "string"), text]}


LADDER = [
    [is_label(n, "a") for n in range(rung)] + [is_label(rung, choice)]
    for rung in range(35)
    for choice in "bcd"
]
CHAIN = [[{"exists": field(f"labels.k{number}", "string")} for number in range(115)]]


@pytest.mark.parametrize("conjuncts", [LADDER, CHAIN], ids=["rules that share much", "a long conjunction"])
def test_rules_of_many_conditions_can_be_judged_together(conjuncts):
    told = {"severity": "error", "summary": "x"}
    rules = [
        rule_of(document(name=f"r{n}", match={"type": "m"}, when={"and": when}, incident=told))
        for n, when in enumerate(conjuncts)
    ]
    reference = Reference({rule.name: to_document(rule) for rule in rules}, idle_s=10, grace_s=7)
    made = Engine(compile_rules((version_id(rule), rule) for rule in rules), LIMITS)
    dice = random.Random(1)
    for number in range(300):
        rung = dice.randrange(36)
        labels = {f"k{n}": "a" for n in range(rung)} | {f"k{rung}": dice.choice("abcde")}
        if number % 10 == 0:
            labels = {f"k{n}": "a" for n in range(114 + number // 10 % 2)}
        one: dict[str, Any] = {
            "source": "s",
            "id": str(number),
            "time_us": START_US + number,
            "type": "m",
            "subject": "",
            "site": "",
            "severity": "info",
            "value": None,
            "labels": labels,
            "data": None,
        }
        assert of_engine(made.apply([as_given(one)], START_US).transitions) == by_group(
            reference.apply([one], START_US)
        )


@settings(max_examples=EXAMPLES, deadline=None)
@given(ANYTHING, events(0, 0))
def test_what_validation_accepts_can_be_judged(condition, event):
    document = {
        "schema": "tlsy.rule/1",
        "name": "r",
        "match": {"type": event["type"]},
        "when": condition,
        "incident": {"severity": "error", "summary": "x"},
    }
    rule = validate(document, ObservedSchema(), RuleLimits())
    if isinstance(rule, list):
        return
    reference = Reference({"r": to_document(rule)}, idle_s=10, grace_s=7)
    made = Engine(compile_rules([(version_id(rule), rule)]), LIMITS)
    assert of_engine(made.apply([as_given(event)], START_US).transitions) == by_group(
        reference.apply([event], START_US)
    )
