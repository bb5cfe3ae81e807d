from __future__ import annotations

from typing import Any

from tlsy.contracts.ingestion.v1 import ingestion_pb2
from tlsy.rules_engine.handlers.observing import FieldObserver
from tlsy.rules_engine.ports import ObservedField

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
