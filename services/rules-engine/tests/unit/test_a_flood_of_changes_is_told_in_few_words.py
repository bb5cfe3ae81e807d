from __future__ import annotations

from uuid import UUID

import pytest

from tlsy.rules_engine.domain.incident import ReopenPolicy, dedup_key
from tlsy.rules_engine.handlers.incident_book import MAX_OPENED, MAX_STEPS, MAX_TOLD, IncidentBook

from .rules import START_US, S, engine, event, rule


@pytest.fixture
def flood():
    """A book, and a way to have an event per subject open, or resolve, its incident there."""
    made, numbers = rule(), iter(range(10**6))
    judge, book = engine(made), IncidentBook(ReopenPolicy(), lambda: UUID(int=next(numbers)))

    def put(at_s, subjects, value):
        events = [event(at_s, value, subject=f"room {n}") for n in range(subjects)]
        for transition in judge.apply(events, START_US + at_s * S).transitions:
            key = dedup_key(made, transition.group)
            if not book.knows(key):
                book.learn([key], {})
            if transition.kind == "open":
                book.open(key, made, transition)
            else:
                book.resolve(key, transition)

    return book, put


def test_what_flaps_has_its_first_steps_in_the_timeline_and_then_where_it_ended(flood):
    book, put = flood
    for at_s in range(100):
        put(at_s, 1, 1.0 if at_s % 2 else 95.0)
    (stored,), told = book.close()
    assert [change for _, change in told] == ["opened", "resolved"] * (MAX_STEPS // 2) + ["resolved"]
    assert len(stored.incident.timeline) == MAX_STEPS + 1
    assert stored.incident.entries_dropped == 100 - MAX_STEPS - 1
    assert stored.incident.timeline[-1].note == f"the last of {100 - MAX_STEPS} changes in short order"


def test_no_more_incidents_are_opened_than_one_transaction_may(flood):
    book, put = flood
    put(0, MAX_OPENED + 3, 95.0)
    changed, told = book.close()
    assert (len(changed), len(told), book.opened, book.refused) == (MAX_OPENED, MAX_OPENED, MAX_OPENED, 3)


def test_no_more_changes_are_told_than_one_transaction_may(flood):
    book, put = flood
    for at_s in range(5):
        put(at_s, MAX_OPENED, 1.0 if at_s % 2 else 95.0)
    _, told = book.close()
    assert (len(told), book.untold) == (MAX_TOLD, 5 * MAX_OPENED - MAX_TOLD)
