from __future__ import annotations

from typing import Any

import pytest

from tlsy.contracts.ingestion.v1 import ingestion_pb2
from tlsy.rules_engine.handlers.observing import FieldObserver
from tlsy.rules_engine.ports import ObservedField
from tlsy.rules_engine.rpc.mapping import to_field
from tlsy.rules_engine.settings import RulesEngineSettings

MINUTE_US = 60_000_000
STRING: Any = frozenset({"string"})


def event(**labels):
    return ingestion_pb2.Event(source="s", type="t", labels=labels)


def observer(*fields):
    return FieldObserver([ObservedField("t", path, STRING, seen_us) for path, seen_us in fields], len(fields))


def test_the_longest_unseen_field_makes_room_for_a_new_one():
    full = observer(("labels.old", 0), ("labels.older", -1), ("source", 0), ("severity", 0))
    full.look([event(new="x")], 10 * MINUTE_US)
    written, gone = full.take(10 * MINUTE_US)
    assert {field.path for field in written} == {"source", "severity", "labels.new"}
    assert gone == [("t", "labels.older")]


def test_a_flood_of_fields_takes_the_place_of_none_that_still_comes():
    full = observer(("labels.kept", 0), ("source", 0), ("severity", 0))
    for minute in range(20):
        now_us = minute * MINUTE_US
        full.look([event(kept="x"), event(**{f"flood{minute}": "x"})], now_us)
        assert not full.take(now_us)[1]


def test_as_many_as_may_be_remembered_fit_into_one_answer():
    most = RulesEngineSettings(max_observed_fields=4_000).max_observed_fields
    with pytest.raises(ValueError, match="less than or equal to 4000"):
        RulesEngineSettings(max_observed_fields=most + 1)
    kinds: Any = frozenset({"boolean", "number", "string", "severity"})
    widest = ObservedField("t" * 100, "\U0001f600" * 200, kinds, 253402300799_999999)
    assert most * (to_field(widest).ByteSize() + 6) < 4 * 1024 * 1024
