from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import assume, given
from hypothesis import strategies as st

from tlsy.contracts.ingestion.v1.encoded_pb2 import EncodedEvents
from tlsy.ingestion.domain.unreadable import unreadable_from

EVENTS = EncodedEvents.EVENTS_FIELD_NUMBER
EVENT = b"\x0a\x02ab"
#: Fields, some with longer numbers than they need.
GOOD = [
    EVENT,
    b"\x0a\x00",
    b"\x8a\x00\x01a",
    b"\x08\x01",
    b"\x12\x01a",
    b"\x19" + b"a" * 8,
    b"\x25" + b"a" * 4,
    b"\x18" + b"\xff" * 9 + b"\x7f",
    b"\xfa\xff\xff\xff\x0f\x00",
]
#: No field: a tag, a length or a number that is too long, a tag that is too large or of no number, a kind
#: that there is not, an end of nothing.
BAD = [
    b"\x8a" + b"\x80" * 4 + b"\x00\x01a",
    b"\x0a\x81" + b"\x80" * 4 + b"\x00a",
    b"\x18" + b"\xff" * 10 + b"\x01",
    b"\x8a\x80\x80\x80\x10\x01a",
    b"\x02\x00",
    b"\x00\x00",
    b"\x0e",
    b"\x0f",
    b"\x0c",
]


def events_of(batch):
    """None: it cannot be read."""
    try:
        return len(EncodedEvents.FromString(batch).events)
    except DecodeError:
        return None


@pytest.mark.parametrize("bad", [b"", *BAD])
@given(
    before=st.lists(st.sampled_from(GOOD), max_size=6).map(b"".join),
    after=st.lists(st.sampled_from(GOOD), max_size=2).map(b"".join),
    cut=st.integers(0, 12),
)
def test_it_is_behind_what_the_parser_could_read(bad, before, after, cut):
    batch = before + bad + after
    batch = batch[: max(0, len(batch) - cut)]
    readable = [events_of(batch[:end]) for end in range(len(batch) + 1)]
    expected = "" if readable[-1] is not None else f"events[{max(n or 0 for n in readable)}]"
    assert unreadable_from(batch, EVENTS) == expected


@given(st.binary(max_size=60))
def test_of_what_the_parser_refuses_it_is_never_nowhere(batch):
    assume(events_of(batch) is None)
    assert unreadable_from(batch, EVENTS)


def test_a_group_counts_as_what_cannot_be_read():
    assert unreadable_from(EVENT + b"\x1b\x1c" + EVENT + b"\x0a", EVENTS) == "events[1]"


def test_it_is_not_looked_for_behind_more_fields_than_a_batch_has():
    assert unreadable_from(EVENT * 1_000_000 + b"\x0a", EVENTS) == "events[10002]"
