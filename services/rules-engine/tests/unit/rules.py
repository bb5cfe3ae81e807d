"""Rule documents for the tests, and what they make."""

from __future__ import annotations

from tlsy.rules_engine.domain.canonical import version_id
from tlsy.rules_engine.domain.compiler import compile_rules
from tlsy.rules_engine.domain.engine import Engine, EngineLimits
from tlsy.rules_engine.domain.events import Event
from tlsy.rules_engine.domain.problems import ObservedSchema, RuleLimits
from tlsy.rules_engine.domain.validate import validate

S = 1_000_000
START_US = 1_700_000_000 * S
HOT: dict[str, object] = {"gt": [{"field": "value"}, 90]}


def document(**changes):
    return {
        "schema": "tlsy.rule/1",
        "name": "hot",
        "match": {"type": "temperature"},
        "when": HOT,
        "incident": {"severity": "error", "summary": "{subject} at {value}"},
        **changes,
    }


def without(name, **changes):
    return {key: value for key, value in document(**changes).items() if key != name}


def rule(**changes):
    made = validate(document(**changes), ObservedSchema(), RuleLimits())
    assert not isinstance(made, list), made
    return made


def compiled(*rules):
    return compile_rules((version_id(each), each) for each in rules)


def engine(*rules, **limits):
    return Engine(compiled(*rules), EngineLimits(**limits))


def event(at_s, value=95.0, **changes):
    fields = {"source": "s", "id": "1", "type": "temperature", "subject": "room", "value": value, **changes}
    return Event(time_us=START_US + round(at_s * S), **fields)


def kinds(effects):
    return [(transition.kind, transition.reason) for transition in effects.transitions]
