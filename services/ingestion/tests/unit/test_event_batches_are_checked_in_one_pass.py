from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
from tlsy.ingestion.domain.events import TimeWindow, columns, event_key
from tlsy.ingestion.domain.events import read_batch as read_encoded

NOW_US = 1_750_000_000_000_000
WINDOW = TimeWindow(NOW_US - 1_000_000, NOW_US + 1_000_000)


def event(**changes: Any) -> pb.Event:
    good: dict[str, Any] = {"source": "agent/a", "id": "1", "time_us": NOW_US, "type": "host.cpu"}
    return pb.Event(**(good | {"value": 0.5} | changes))


def read_batch(events, window):
    return read_encoded([each.SerializeToString() for each in events], window)


def reasons(*events: pb.Event) -> list[tuple[int, str, str]]:
    return [(p.index, p.reason, p.field) for p in read_batch(events, WINDOW).problems]


def test_a_good_event_becomes_a_row_with_its_defaults():
    batch = read_batch([event(labels={"host": "é"}, data=b'{"a": 1}')], WINDOW)
    assert batch.rows == [
        (
            NOW_US,
            event_key("agent/a", "1"),
            0,
            "agent/a",
            "1",
            "host.cpu",
            "",
            "",
            2,
            0.5,
            '{"host":"é"}',
            '{"a": 1}',
        )
    ]
    assert not batch.problems


def test_labels_that_are_the_same_for_some_are_each_events_own():
    told = [{"host": "a"}, {"host": "b"}, {"host": "a"}, {}, {"host": "a", "env": "x" * 257}, {"": "y"}]
    told += reversed(told)
    events = [event(id=str(number), labels=labels) for number, labels in enumerate(told)]
    batch = read_batch(events, WINDOW)
    assert {row[2]: msgspec.json.decode(row[10]) for row in batch.rows} == {
        number: told[number] for number in (0, 1, 2, 3, 8, 9, 10, 11)
    }
    assert [(p.index, p.field) for p in batch.problems] == [
        (4, "labels.env"),
        (5, "labels."),
        (6, "labels."),
        (7, "labels.env"),
    ]


@pytest.mark.parametrize("field", ["unknown", "repeated"])
def test_an_event_is_not_larger_than_its_fields_can_be(field):
    good = event(data=b'{"a":1}' if field == "repeated" else b"").SerializeToString()
    # Field 1,000 is unknown; field `data` is in the bytes as often as one likes, and the last one counts.
    number = 1_000 if field == "unknown" else pb.Event.DESCRIPTOR.fields_by_name["data"].number
    tag = number << 3 | 2
    lead = bytes((tag,)) if tag < 128 else bytes((tag & 127 | 128, tag >> 7))
    parts = lead + b"\xff\x7f" + b"x" * (128 * 128 - 1)
    for count, wrong in ((1, []), (3, ["EVENT_TOO_LARGE"])):
        encoded = parts * count + good
        assert [p.reason for p in read_encoded([encoded], WINDOW).problems] == wrong


def test_an_absent_value_is_null_and_zero_is_zero():
    missing, zero = event(id="1"), event(id="2", value=0.0)
    missing.ClearField("value")
    values = {row[2]: row[9] for row in read_batch([missing, zero], WINDOW).rows}
    assert values == {0: None, 1: 0.0}


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"source": ""}, "SOURCE_INVALID", "source"),
        ({"source": "é" * 101}, "SOURCE_INVALID", "source"),
        ({"source": "a\0b"}, "SOURCE_INVALID", "source"),
        ({"id": ""}, "ID_INVALID", "id"),
        ({"id": "x" * 201}, "ID_INVALID", "id"),
        ({"type": ""}, "TYPE_INVALID", "type"),
        ({"type": "Host CPU"}, "TYPE_INVALID", "type"),
        ({"type": "a" * 101}, "TYPE_INVALID", "type"),
        ({"subject": "s" * 201}, "SUBJECT_INVALID", "subject"),
        ({"site": "s" * 101}, "SITE_INVALID", "site"),
        ({"time_us": 0}, "TIME_MISSING", "time_us"),
        ({"time_us": NOW_US - 1_000_001}, "TIME_TOO_OLD", "time_us"),
        ({"time_us": NOW_US + 1_000_001}, "TIME_IN_FUTURE", "time_us"),
        ({"time_us": -(2**63)}, "TIME_TOO_OLD", "time_us"),
        ({"severity": 17}, "SEVERITY_UNKNOWN", "severity"),
        ({"value": math.nan}, "VALUE_NOT_FINITE", "value"),
        ({"value": math.inf}, "VALUE_NOT_FINITE", "value"),
        ({"value": -math.inf}, "VALUE_NOT_FINITE", "value"),
        ({"labels": {str(n): "" for n in range(33)}}, "LABELS_TOO_MANY", "labels"),
        ({"labels": {"": "x"}}, "LABEL_INVALID", "labels."),
        ({"labels": {"k" * 65: ""}}, "LABEL_INVALID", "labels." + "k" * 64),
        ({"labels": {"k": "é" * 129}}, "LABEL_INVALID", "labels.k"),
        ({"labels": {"k": "\0"}}, "LABEL_INVALID", "labels.k"),
        # As it may be stored and shown itself.
        ({"labels": {"a\0b": ""}}, "LABEL_INVALID", "labels.a\\0b"),
        ({"data": b"[1]"}, "DATA_INVALID", "data"),
        ({"data": b"{"}, "DATA_INVALID", "data"),
        ({"data": b'{"a": NaN}'}, "DATA_INVALID", "data"),
        ({"data": b'{"a": "\xff"}'}, "DATA_INVALID", "data"),
        ({"data": b'{"a": "\\u0000"}'}, "DATA_INVALID", "data"),
        ({"data": b'{"a": [{"\\u0000": 1}]}'}, "DATA_INVALID", "data"),
        ({"data": b'{"a": 1e-20000}'}, "DATA_INVALID", "data"),
        ({"data": b'{"a": 0E99999999999999999999}'}, "DATA_INVALID", "data"),
        ({"data": b'{"a": 0.%se-99}' % (b"1" * 16_340)}, "DATA_INVALID", "data"),
        ({"data": b'{"a": [%s1e99]}' % (b"1e-99," * 164)}, "DATA_INVALID", "data"),
        ({"data": b'{"a":"' + b"x" * 17_000 + b'"}'}, "DATA_TOO_LARGE", "data"),
        ({"data": b"[" * 16_000}, "DATA_INVALID", "data"),
    ],
)
def test_a_bad_field_is_refused_by_its_reason(changes, reason, field):
    assert reasons(event(**changes)) == [(0, reason, field)]


@pytest.mark.parametrize(
    ("time_us", "message"),
    [
        (NOW_US - 1_000_001, "must be 2025-06-15T15:06:39.000000Z or later, is 2025-06-15T15:06:38.999999Z"),
        (
            NOW_US + 1_000_001,
            "must be 2025-06-15T15:06:41.000000Z or earlier, is 2025-06-15T15:06:41.000001Z",
        ),
        (-(2**63), "must be 2025-06-15T15:06:39.000000Z or later, is -9223372036854775808 µs since 1970"),
    ],
)
def test_a_time_out_of_bounds_is_told_as_people_read_it(time_us, message):
    assert [p.message for p in read_batch([event(time_us=time_us)], WINDOW).problems] == [message]


@pytest.mark.parametrize(
    "data",
    [
        rb'{"a": "\\u0000"}',
        b'{"a": 1e-16383}',
        b'{"a": [%s"1e-20000"]}' % (b'"1e99",' * 2_000),
        b'{"a": [%s1]}' % (b"1.2345678901234567e-05," * 700),
        b'{"a": 0.%s}' % (b"1" * 16_300),
        b'{"a": "\\\\u0000", "b": %s1%s}' % (b"[" * 900, b"]" * 900),
    ],
)
def test_data_that_the_database_holds_is_taken(data):
    assert not reasons(event(data=data))


def test_every_problem_of_every_event_is_told_and_the_good_ones_go_on():
    batch = read_batch([event(source="", time_us=0), event(), event(value=math.nan, id="")], WINDOW)
    assert [(p.index, p.reason) for p in batch.problems] == [
        (0, "SOURCE_INVALID"),
        (0, "TIME_MISSING"),
        (2, "ID_INVALID"),
        (2, "VALUE_NOT_FINITE"),
    ]
    assert [row[2] for row in batch.rows] == [1]


def test_of_very_many_problems_each_event_has_at_least_one_and_an_answer_can_be_sent():
    labels = {f"\0{'k' * 60}{number}": "\0" for number in range(40)}
    crowded = [pb.Event(labels=labels) for _ in range(160)]
    problems = read_batch([*crowded, *(pb.Event() for _ in range(9_840))], WINDOW).problems
    assert {problem.index for problem in problems} == set(range(10_000))
    assert len(problems) < 20_000
    assert sum(len(f"{p.reason}{p.field}{p.message}") + 16 for p in problems) < 4 * 1024 * 1024


def test_of_too_many_labels_only_as_many_as_there_may_be_are_looked_at():
    found = reasons(event(labels={f"\0{number}": "" for number in range(1_000)}))
    assert found[0][1] == "LABELS_TOO_MANY"
    assert [reason for _, reason, _ in found[1:]] == ["LABEL_INVALID"] * 32


#: A label, as it is in an event, whose key is no UTF-8: to read it fails.
UNREADABLE_LABEL = b"\x4a\x03\x0a\x01\xff"


def test_what_is_too_much_is_not_read():
    good = event(id="", labels={str(number): "" for number in range(32)}).SerializeToString()
    found = read_encoded([good + UNREADABLE_LABEL, b"\xff" * 40_000], WINDOW).problems
    assert [(p.index, p.reason) for p in found] == [
        (0, "ID_INVALID"),
        (0, "LABELS_TOO_MANY"),
        (1, "EVENT_TOO_LARGE"),
    ]


@pytest.mark.parametrize("unreadable", [UNREADABLE_LABEL, b"\x0a\x01\xff", b"\x0a\x05a", b"\xff"])
def test_an_event_that_cannot_be_read_is_left_out_alone(unreadable):
    """Also of two that are the same, of which one can be read."""
    good = event().SerializeToString()
    batch = read_encoded([good + unreadable, good, good + unreadable], WINDOW)
    assert [(p.index, p.reason, p.field) for p in batch.problems] == [
        (0, "EVENT_UNREADABLE", ""),
        (2, "EVENT_UNREADABLE", ""),
    ]
    assert [row[2] for row in batch.rows] == [1]
    assert not batch.duplicates


def test_of_a_label_that_is_there_twice_the_last_one_counts():
    twice = (
        event(labels={"host": "a"}).SerializeToString() + pb.Event(labels={"host": "b"}).SerializeToString()
    )
    (row,) = read_encoded([twice], WINDOW).rows
    assert row[10] == '{"host":"b"}'


@pytest.mark.parametrize("more", [b"\x18\x01", b"\x08\x01", b"\x1b\x1c"])
def test_a_label_that_holds_more_than_a_key_and_a_value_is_refused(more):
    """Its readers leave it out, and judge another event than the one that is stored."""
    label = b"\x0a\x04host\x12\x01a" + more
    encoded = event().SerializeToString() + b"\x4a" + bytes([len(label)]) + label
    assert "host" not in pb.Event.FromString(encoded).labels
    found = read_encoded([encoded, event(id="2", labels={"host": "a"}).SerializeToString()], WINDOW)
    assert [(p.index, p.reason, p.field) for p in found.problems] == [(0, "LABEL_INVALID", "labels.host")]
    assert [row[2] for row in found.rows] == [1]


def _part(number, kind, text, figure):
    """A field as it is on the wire, whether or not a message has one of that number and kind."""
    tag = bytes([number << 3 | kind])
    return tag + {0: bytes([figure]), 1: bytes(8), 2: bytes([len(text)]) + text, 5: bytes(4)}[kind]


def _parts(numbers, texts, most):
    kinds = st.sampled_from([0, 1, 2, 2, 2, 5])
    part = st.builds(_part, st.sampled_from(numbers), kinds, texts, st.integers(0, 127))
    return st.lists(part, max_size=most).map(b"".join)


_TEXTS = st.sampled_from([b"", b"a", b"b", b"a.b", b"\xc3\xa9", b"\xff", b"{}"])
_LABELS = _parts([1, 1, 2, 2, 3], _TEXTS, 3).map(lambda text: _part(9, 2, text, 0))


@settings(max_examples=300)
@given(st.lists(st.one_of(_LABELS, _parts([*range(1, 12)], _TEXTS, 1)), max_size=6).map(b"".join))
def test_what_is_stored_is_what_readers_read_however_it_is_encoded(parts):
    encoded = event().SerializeToString() + parts
    try:
        told = pb.Event.FromString(encoded)
    except DecodeError:
        assert [p.reason for p in read_encoded([encoded], WINDOW).problems] == ["EVENT_UNREADABLE"]
        return
    for row in read_encoded([encoded], WINDOW).rows:
        assert (row[0], *row[3:8]) == (
            told.time_us, told.source, told.id, told.type, told.subject, told.site
        )  # fmt: skip
        assert (row[8], row[9], row[11] or "") == (
            told.severity or 2,
            told.value if told.HasField("value") else None,
            told.data.decode(),
        )
        assert msgspec.json.decode(row[10]) == dict(told.labels)


def test_the_second_of_two_equal_events_is_a_duplicate_and_another_time_is_another_event():
    batch = read_batch([event(), event(time_us=NOW_US + 1), event(value=9.0)], WINDOW)
    assert batch.duplicates == {2: 0}
    assert [row[2] for row in batch.rows] == [0, 1]


def test_the_ends_of_the_window_are_inside_it():
    assert not reasons(event(time_us=WINDOW.oldest_us), event(time_us=WINDOW.newest_us))


@settings(deadline=None)
@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_no_two_pairs_of_source_and_id_share_a_key(one, other):
    assert (event_key(*one) == event_key(*other)) == (one == other)


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


@given(
    st.lists(
        st.builds(
            pb.Event,
            source=_texts,
            id=_texts,
            time_us=st.integers(NOW_US - 2_000_000, NOW_US + 2_000_000),
            type=st.sampled_from(["host.cpu", "", "A", "a.b-c"]),
            subject=_texts,
            value=st.floats(),
            severity=st.integers(0, 6),
            labels=st.dictionaries(_texts, _texts, max_size=4),
            data=st.sampled_from([b"", b"{}", b"{", b"[]"]),
        ),
        max_size=6,
    )
)
def test_each_event_is_a_row_a_duplicate_or_has_a_problem(events):
    batch = read_batch(events, WINDOW)
    places = [row[2] for row in batch.rows] + [*batch.duplicates] + sorted({p.index for p in batch.problems})
    assert sorted(places) == list(range(len(events)))
    assert batch.rows == sorted(batch.rows)
    for row in batch.rows:
        assert all("\0" not in text for text in row[3:8])


@given(st.lists(st.one_of(st.binary(max_size=80), _LABELS), max_size=6))
def test_whatever_an_event_is_made_of_it_has_a_place_in_the_answer(encoded):
    batch = read_encoded(encoded, WINDOW)
    places = {row[2] for row in batch.rows} | batch.duplicates.keys() | {p.index for p in batch.problems}
    assert places == set(range(len(encoded)))


def test_what_separates_texts_is_in_none_of_them_whatever_they_hold():
    every = "".join(map(chr, (*range(1, 0xD800), *range(0xE000, 0x110000))))
    rows = [
        (0, b"k", 0, "\x1f", "1", "t", "", "", 2, None, "{}", every),
        (1, b"l", 1, "b\x1f", "2", "t", "", "", 2, None, "{}", None),
    ]
    _, _, sources, *_, data, separator = map(str, columns(rows))
    assert sources.split(separator) == ["\x1f", "b\x1f"]
    assert data.split(separator) == [every, ""]
