from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from tlsy.contracts.cloudevents import CloudEvent
from tlsy.eventlog.lane import Lane
from tlsy.eventlog.ports import OutboxDatabase
from tlsy.tenancy.context import Placement


def event(number, size=10):
    return CloudEvent(
        id=UUID(int=number),
        type="t",
        source="s",
        tenant_id=UUID(int=1),
        epoch=1,
        time=datetime(2026, 1, 1, tzinfo=UTC),
        key="k",
        data=bytes(size),
    )


@pytest.fixture
def lane():
    return Lane(OutboxDatabase(Placement("c", "d", "s"), notifies=False), limit_bytes=100)


def swept(lane):
    lane.look()
    lane.caught_up()
    return lane


def test_nothing_is_taken_before_older_rows_are_swept(lane):
    lane.offer([event(1)])
    assert lane.take(1_000) == []
    assert swept(lane).take(1_000) == [event(1)]


def test_what_the_sweep_published_leaves_the_queue(lane):
    lane.offer([event(1), event(2)])
    lane.look()
    lane.published({UUID(int=1)})
    lane.caught_up()
    assert lane.take(1_000) == [event(2)]


def test_an_event_without_room_holds_back_what_follows(lane):
    swept(lane).offer([event(1, 90), event(2, 20)])
    assert lane.take(1_000) == []


def test_what_is_held_during_a_sweep_needs_another_one(lane):
    lane.look()
    lane.hold()
    lane.caught_up()
    assert not lane.swept
    assert swept(lane).swept


def test_room_is_given_back(lane):
    for number in range(20):
        swept(lane).offer([event(number, 90)])
        assert lane.take(1_000) == [event(number, 90)]


def test_a_batch_is_bounded_in_bytes_but_never_empty(lane):
    swept(lane).offer([event(1), event(2), event(3)])
    assert [len(lane.take(20)), len(lane.take(1))] == [2, 1]
