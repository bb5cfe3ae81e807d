from __future__ import annotations

from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
from tlsy.rules_engine.domain.incident import DedupKey
from tlsy.rules_engine.handlers.observing import FieldObserver
from tlsy.rules_engine.handlers.refreshes import Refreshes

from .rules import START_US, S

KEY = DedupKey("k")
HOUR = 3600 * S


def test_what_fired_again_is_counted_at_once_and_then_as_ever():
    refreshes = Refreshes(())
    refreshes.add(KEY, 0)
    refreshes.leave(START_US, "1")
    counted = []
    for number in range(4):
        refreshes.add(KEY, 0)
        due, _ = refreshes.leave(START_US - HOUR + number * S, f"back {number}")
        counted.append(due[KEY].times if due else 0)
    assert counted == [1, 0, 0, 3]


def test_fields_that_are_new_are_written():
    observer = FieldObserver((), 100)
    observer.look([pb.Event(type="t", subject="x")], START_US)
    observer.take(START_US)
    observer.look([pb.Event(type="t", site="y")], START_US - HOUR)
    fields, _ = observer.take(START_US - HOUR)
    assert [field.path for field in fields] == ["site"]
