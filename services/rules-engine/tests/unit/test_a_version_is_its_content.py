from __future__ import annotations

import json

import pytest

from tlsy.rules_engine.domain.canonical import (
    NotCanonicalError,
    canonical_json,
    difference,
    load_rule,
    version_id,
)
from tlsy.rules_engine.domain.problems import ObservedSchema, RuleLimits, SeenField
from tlsy.rules_engine.domain.validate import validate

from .rules import HOT, document, rule


def test_key_order_number_form_and_written_defaults_do_not_change_the_version():
    written = rule(when={"gt": [{"field": "value"}, 90.0]}, lateness_s=30, resolve={"auto": True})
    assert version_id(written) == version_id(rule())


def test_another_threshold_is_another_version():
    assert version_id(rule(when={"gt": [{"field": "value"}, 91]})) != version_id(rule())


def test_stored_bytes_load_into_the_same_rule():
    made = rule(when={"and": [HOT, {"in": [{"field": "site"}, ["b", "a", "b"]]}]}, for_s=5)
    loaded = load_rule(canonical_json(made), RuleLimits())
    assert canonical_json(loaded) == canonical_json(made)


def test_the_type_that_was_seen_is_stored_with_the_field():
    seen = ObservedSchema({"temperature": {"data.on": SeenField(frozenset({"boolean"}), 0)}})
    made = validate(document(when={"exists": {"field": "data.on"}}), seen, RuleLimits())
    assert not isinstance(made, list)
    assert json.loads(canonical_json(made))["when"] == {"exists": {"field": "data.on", "type": "boolean"}}


def test_a_difference_names_what_changed_by_pointer():
    old, new = rule(), rule(when={"gt": [{"field": "value"}, 80]}, for_s=60)
    changes = [(change.pointer, change.kind, change.old, change.new) for change in difference(old, new)]
    assert changes == [("/for_s", "added", None, 60), ("/when/gt/1", "changed", 90, 80)]


def test_equal_rules_do_not_differ():
    assert difference(rule(), rule()) == []


def test_stored_bytes_that_are_no_rule_raise_with_the_problems():
    with pytest.raises(NotCanonicalError) as raised:
        load_rule(b"{}", RuleLimits())
    assert raised.value.problems
