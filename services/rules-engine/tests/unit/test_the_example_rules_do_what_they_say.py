from __future__ import annotations

import json
from pathlib import Path

import pytest

from tlsy.rules_engine.domain.problems import ObservedSchema, RuleLimits
from tlsy.rules_engine.domain.validate import validate

from .rules import START_US, engine, event, kinds

EXAMPLES = Path(__file__).parents[4] / "examples" / "rules"


def example(name):
    made = validate(json.loads((EXAMPLES / f"{name}.json").read_text()), ObservedSchema(), RuleLimits())
    assert not isinstance(made, list), made
    return made


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_each_can_be_published_under_its_file_s_name(path):
    assert example(path.stem).name == path.stem


def test_processors_are_busy_for_a_minute_before_they_are_an_incident():
    made = engine(example("cpu-busy"))
    first = [event(at_s, 100.0, type="host.cpu") for at_s in range(60)]
    assert kinds(made.apply(first, START_US)) == []
    assert ("open", "") in kinds(made.apply([event(60, 100.0, type="host.cpu")], START_US))
    assert kinds(made.apply([event(61, 10.0, type="host.cpu")], START_US)) == [("resolve", "cleared")]
