from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tlsy.eventlog.ports import Received
from tlsy.ingestion.consumers import event_id
from tlsy.tenancy.unit_of_work import uuid7_day

RECORD = Received(
    topic="t",
    partition=1,
    offset=2,
    time=datetime(2026, 3, 4, 23, 59, 59, 999_000, UTC),
    key=None,
    value=b"value",
    headers=(),
    time_of_broker=True,
)


def test_its_id_is_of_its_day_and_stays_when_it_is_parked():
    assert uuid7_day(event_id(RECORD)) == RECORD.time.date()
    assert event_id(replace(RECORD, time_of_broker=False)) == event_id(RECORD)


@pytest.mark.parametrize(
    "other",
    [{"partition": 2}, {"offset": 3}, {"time": RECORD.time + timedelta(milliseconds=1)}, {"value": b"other"}],
)
def test_another_record_has_another_id(other):
    assert event_id(replace(RECORD, **other)) != event_id(RECORD)
