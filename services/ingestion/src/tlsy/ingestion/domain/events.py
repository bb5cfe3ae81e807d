"""The limits of a supervision event, and the one pass that turns a batch into columns.

The pass is the hot path of the product: it is written out by hand, column by column, with no call per field.
It collects the problems of every event; an event with one is left out of the columns and the others go on.
What is too large or too many is told by its size or number and not read, so that hostile events cost no more.
Rows leave it sorted by key, so that two batches that overlap lock rows in one order and cannot deadlock.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from hashlib import sha256
from itertools import islice
from math import isfinite
from typing import TYPE_CHECKING, Final

import msgspec
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from tlsy.contracts.ingestion.v1.encoded_pb2 import EncodedEvent, Label

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MAX_EVENTS: Final = 10_000
MAX_BATCH_BYTES: Final = 4 * 1024 * 1024
MAX_SOURCE_BYTES: Final = 200
MAX_ID_BYTES: Final = 200
MAX_TYPE_BYTES: Final = 100
MAX_SUBJECT_BYTES: Final = 200
MAX_SITE_BYTES: Final = 100
MAX_LABELS: Final = 32
MAX_LABEL_KEY_BYTES: Final = 64
MAX_LABEL_VALUE_BYTES: Final = 256
MAX_DATA_BYTES: Final = 16 * 1024
#: As it is encoded: more than all its fields can be, when each is there once and none is unknown.
MAX_EVENT_BYTES: Final = 32 * 1024
#: How far a producer's clock may run ahead, in µs.
MAX_AHEAD_US: Final = 5 * 60 * 1_000_000
MAX_SEVERITY: Final = 5
#: Of a batch. Beyond them the first of each event is told: or an answer may be many times what was asked.
MAX_PROBLEMS: Final = 10_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TYPE: Final = re.compile(r"[a-z][a-z0-9_]*(?:[.-][a-z0-9_]+)*").fullmatch
_encode_json: Final = msgspec.json.Encoder().encode
_decode_json: Final = msgspec.json.Decoder().decode
#: PostgreSQL writes numbers out: 1e-99 is read again as a hundred digits. So many may those of an event
#: have that have an exponent, all together; behind its point a number may have one less there.
_MAX_DIGITS: Final = 16_384
#: What has none in it is read with few times its own bytes.
_LONG_EXPONENT: Final = re.compile(rb"[0-9][eE][+-]?[0-9]{2}").search


class Outcome(IntEnum):
    """What became of one event; the numbers are those of the proto."""

    ACCEPTED = 1
    DUPLICATE = 2
    REJECTED = 3
    DEFERRED = 4


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one event.

    `index` is the event's place in the batch, `reason` stable and UPPER_SNAKE, `field` a path such as
    "labels.host".
    """

    index: int
    reason: str
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """Event times that are taken, in µs since 1970: both ends inclusive."""

    oldest_us: int
    newest_us: int


#: A row of the events table, led by its sort key: (time_us, event_key, index in the batch, source, id, type,
#: subject, site, severity, value, labels as JSON, data as JSON or None).
Row = tuple[int, bytes, int, str, str, str, str, str, int, "float | None", str, "str | None"]


@dataclass(slots=True)
class Batch:
    """A validated batch.

    Attributes:
        rows: what may be stored, sorted by (time_us, event_key), no two with the same.
        duplicates: indexes of events that stand in the batch before, each with the first one's.
        problems: of the events left out; all of them, up to MAX_PROBLEMS, and at least one of each event.
    """

    rows: list[Row] = field(default_factory=list)
    duplicates: dict[int, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def event_key(source: str, event_id: str) -> bytes:
    """The 16 bytes that know an event within its tenant: of SHA-256 over length-prefixed (source, id)."""
    return sha256(_head(source) + event_id.encode()).digest()[:16]


def _head(source: str) -> bytes:
    text = source.encode()
    return b"%d:%b" % (len(text), text)


def read_batch(events: Iterable[bytes], window: TimeWindow) -> Batch:
    """Checks and sorts a batch.

    Args:
        events: each to be an Event, at most MAX_EVENTS; the caller has checked the count and the bytes.
        window: the times that are taken.
    """
    batch = Batch()
    rows = batch.rows
    append = rows.append
    oldest_us, newest_us = window.oldest_us, window.newest_us
    # A source's labels are the same in each of its events, and to read them is most of what an event costs.
    read: dict[tuple[bytes, ...], tuple[str, bool]] = {}
    heads: dict[str, bytes] = {}
    for index, bytes_ in enumerate(events):
        if len(bytes_) > MAX_EVENT_BYTES:
            batch.problems.append(_too_large(index, len(bytes_)))
            continue
        try:
            event = EncodedEvent.FromString(bytes_)
            # A slice, because it is copied twice as fast as what it is of.
            told = tuple(event.labels[: MAX_LABELS + 1])
            labels_json, labels_fit = read.get(told) or read.setdefault(told, _read_labels(told))
        except DecodeError:
            # What the parser says names messages that are none of the sender's.
            text = "is no Event, or holds a text that is not UTF-8"
            batch.problems.append(Problem(index, "EVENT_UNREADABLE", "", text))
            continue
        source, event_id, time_us, type_ = event.source, event.id, event.time_us, event.type
        subject, site, severity, raw = event.subject, event.site, event.severity, event.data
        value = event.value if event.HasField("value") else None
        text = f"{source}{event_id}{type_}{subject}{site}"
        if (
            # Every limit is in bytes; ASCII of at most 100 characters cannot pass any of them.
            not text.isascii()
            or not 0 < len(source) <= MAX_SOURCE_BYTES
            or not 0 < len(event_id) <= MAX_ID_BYTES
            or len(type_) > MAX_TYPE_BYTES
            or len(subject) > MAX_SUBJECT_BYTES
            or len(site) > MAX_SITE_BYTES
            or "\0" in text
            or not oldest_us <= time_us <= newest_us
            or _TYPE(type_) is None
            or not 0 <= severity <= MAX_SEVERITY
            or (value is not None and not isfinite(value))
            or not labels_fit
            or raw
        ):
            room = max(1, MAX_PROBLEMS - len(batch.problems))
            if problems := list(islice(_problems(index, event, window), room)):
                batch.problems += problems
                continue
        head = heads.get(source) or heads.setdefault(source, _head(source))
        key = sha256(head + event_id.encode()).digest()[:16]
        told_as, data = severity or 2, raw.decode() if raw else None
        append(
            (time_us, key, index, source, event_id, type_, subject, site, told_as, value, labels_json, data)
        )
    rows.sort()
    _drop_repeats(batch)
    return batch


def _labels(told: Iterable[bytes]) -> tuple[dict[str, str], list[str]]:
    """As a map is read: of a key that is there twice the last one counts. And the keys of what a map has not.

    Readers leave out an entry that has an unknown field, and with it its key and value.
    """
    read = [Label.FromString(label) for label in islice(told, MAX_LABELS)]
    return (
        {label.key: label.value for label in read},
        [label.key for label in read if len(UnknownFieldSet(label))],
    )


def _read_labels(told: Sequence[bytes]) -> tuple[str, bool]:
    """Labels as JSON, and whether all are surely within their limits: a character has up to four bytes."""
    labels, left_out = _labels(told)
    json = _encode_json(labels)
    fit = (
        len(told) <= MAX_LABELS
        and not left_out
        and "" not in labels
        and b"\\u0000" not in json
        # No text is longer than the JSON that it is in; escapes only make it longer.
        and (len(json) <= MAX_LABEL_KEY_BYTES or max(map(len, labels)) <= MAX_LABEL_KEY_BYTES // 4)
        and (
            len(json) <= MAX_LABEL_VALUE_BYTES or max(map(len, labels.values())) <= MAX_LABEL_VALUE_BYTES // 4
        )
    )
    return json.decode(), fit


def columns(rows: Sequence[Row]) -> list[object]:
    """What insert_events.sql takes after the tenant: a column each, and what separates the texts.

    Texts are joined because a driver encodes each element of an array on its own. The separator is in none
    of them; no data is an empty text.
    """
    times, keys, _, sources, ids, types, subjects, sites, severities, values, labels, data = zip(
        *rows, strict=True
    )
    texts = (sources, ids, types, subjects, sites, labels, tuple(json or "" for json in data))
    separator = "\x1f"
    joined = [separator.join(column) for column in texts]
    if any(text.count(separator) >= len(rows) for text in joined):
        # Nobody can write a text that holds the hash of itself, and no end of one is read as the beginning of
        # this, whose first character is in it once. To look for a character that is in none takes longest for
        # who sends most of them.
        separator += sha256("".join(joined).encode()).hexdigest()
        joined = [separator.join(column) for column in texts]
    *led, labels_json, data_json = joined
    return [times, keys, *led, severities, values, labels_json, data_json, separator]


def _drop_repeats(batch: Batch) -> None:
    """The sort put equal keys side by side, earliest index first; later ones are duplicates."""
    kept: list[Row] = []
    last: tuple[int, bytes] | None = None
    for row in batch.rows:
        here = (row[0], row[1])
        if here == last:
            batch.duplicates[row[2]] = kept[-1][2]
        else:
            kept.append(row)
            last = here
    batch.rows = kept


def _too_large(index: int, size: int) -> Problem:
    message = f"must be up to {MAX_EVENT_BYTES} bytes as it is encoded, is {size}; it was not read"
    return Problem(index, "EVENT_TOO_LARGE", "", message)


def _problems(index: int, event: EncodedEvent, window: TimeWindow) -> Iterator[Problem]:
    """Every problem of one event that the fast check could not clear."""
    texts: Sequence[tuple[str, str, int, bool]] = (
        ("source", event.source, MAX_SOURCE_BYTES, True),
        ("id", event.id, MAX_ID_BYTES, True),
        ("subject", event.subject, MAX_SUBJECT_BYTES, False),
        ("site", event.site, MAX_SITE_BYTES, False),
    )
    for name, text, limit, required in texts:
        size = len(text.encode())
        if (required and not size) or size > limit or "\0" in text:
            least = 1 if required else 0
            message = f"must be {least} to {limit} bytes without NUL, is {size} bytes"
            yield Problem(index, f"{name.upper()}_INVALID", name, message)
    if len(event.type) > MAX_TYPE_BYTES or _TYPE(event.type) is None:
        message = f"must be dotted lower-case such as host.cpu, up to {MAX_TYPE_BYTES} bytes"
        yield Problem(index, "TYPE_INVALID", "type", message)
    at_us = event.time_us
    if at_us == 0:
        message = "must be set once by the producer, in µs since 1970 UTC"
        yield Problem(index, "TIME_MISSING", "time_us", message)
    elif at_us < window.oldest_us:
        message = f"must be {_iso(window.oldest_us)} or later, is {_iso(at_us)}"
        yield Problem(index, "TIME_TOO_OLD", "time_us", message)
    elif at_us > window.newest_us:
        message = f"must be {_iso(window.newest_us)} or earlier, is {_iso(at_us)}"
        yield Problem(index, "TIME_IN_FUTURE", "time_us", message)
    if not 0 <= event.severity <= MAX_SEVERITY:
        message = f"must be 0 to {MAX_SEVERITY}, is {event.severity}"
        yield Problem(index, "SEVERITY_UNKNOWN", "severity", message)
    if event.HasField("value") and not isfinite(event.value):
        yield Problem(index, "VALUE_NOT_FINITE", "value", "must be a finite number")
    yield from _label_problems(index, event.labels)
    yield from _data_problems(index, event.data)


def _iso(at_us: int) -> str:
    """For people: in UTC, or the number of µs where no calendar has that time."""
    try:
        return f"{_EPOCH + timedelta(microseconds=at_us):%Y-%m-%dT%H:%M:%S.%fZ}"
    except OverflowError:
        return f"{at_us} µs since 1970"


def _label_problems(index: int, told: Sequence[bytes]) -> Iterator[Problem]:
    """Of too many labels only as many as there may be are looked at."""
    if len(told) > MAX_LABELS:
        yield Problem(index, "LABELS_TOO_MANY", "labels", f"at most {MAX_LABELS}, are {len(told)}")
    labels, left_out = _labels(told)
    for key in left_out:
        message = "must be a key and a value and nothing else"
        yield Problem(index, "LABEL_INVALID", f"labels.{_cut(key)}", message)
    for key, text in labels.items():
        path = f"labels.{_cut(key)}"
        if not 0 < len(key.encode()) <= MAX_LABEL_KEY_BYTES or "\0" in key:
            limit = f"a key must be 1 to {MAX_LABEL_KEY_BYTES} bytes without NUL"
            yield Problem(index, "LABEL_INVALID", path, limit)
        if len(text.encode()) > MAX_LABEL_VALUE_BYTES or "\0" in text:
            limit = f"a value must be up to {MAX_LABEL_VALUE_BYTES} bytes without NUL"
            yield Problem(index, "LABEL_INVALID", path, limit)


def _cut(key: str) -> str:
    """So long as a key may be, and so that it can be stored in what tells of it."""
    return key.replace("\0", "\\0").encode()[:MAX_LABEL_KEY_BYTES].decode(errors="ignore")


def _data_problems(index: int, data: bytes) -> list[Problem]:
    if not data:
        return []
    if len(data) > MAX_DATA_BYTES:
        return [Problem(index, "DATA_TOO_LARGE", "data", f"at most {MAX_DATA_BYTES} bytes, are {len(data)}")]
    try:
        parsed = _decode_json(data)
        if _LONG_EXPONENT(data):
            _check_numbers(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return [Problem(index, "DATA_INVALID", "data", f"must be a JSON object in UTF-8: {error}")]
    if not isinstance(parsed, dict):
        return [Problem(index, "DATA_INVALID", "data", "must be a JSON object")]
    if b"\\u0000" in data and _holds_nul(parsed):
        return [Problem(index, "DATA_INVALID", "data", "must not hold NUL")]
    return []


def _check_numbers(data: bytes) -> None:
    """Raises msgspec.DecodeError where the numbers of JSON are too long as they are written out."""
    room = _MAX_DIGITS

    def take(text: str) -> float:
        nonlocal room
        room -= _digits(text)
        if room < 0:
            raise ValueError(f"numbers with an exponent have more than {_MAX_DIGITS} digits, written out")
        return 0.0

    msgspec.json.Decoder(float_hook=take).decode(data)


def _digits(number: str) -> int:
    """Of a number that has a point or an exponent, as it is without one; of a huge exponent, enough."""
    mantissa, _, exponent = number.lower().partition("e")
    if not exponent:
        return 0
    if len(exponent.lstrip("+-0")) > len(str(_MAX_DIGITS)):
        return _MAX_DIGITS + 1
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    return max(1, len(whole) + int(exponent)) + max(0, len(fraction) - int(exponent))


def _holds_nul(parsed: object) -> bool:
    """Without recursion: data may be nested as deeply as Python's stack allows."""
    waiting = [parsed]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if "\0" in value:
                return True
        elif isinstance(value, dict):
            waiting += value.keys()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False
