from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from tlsy.contracts.cloudevents import CloudEvent
from tlsy.contracts.events import EVENTS_ACCEPTED
from tlsy.eventlog.cloudevents import MAX_DATA_BYTES, from_record, log_of, to_headers
from tlsy.eventlog.delivery import decode_event, parse
from tlsy.eventlog.errors import Poison
from tlsy.eventlog.ports import Received

TENANT = UUID("0190b0a0-0000-7000-8000-000000000001")
KEY = TENANT.hex.encode()
EVENT = CloudEvent(
    id=UUID("0190b0a0-1111-7000-8000-000000000002"),
    type=EVENTS_ACCEPTED,
    source="ingestion",
    tenant_id=TENANT,
    epoch=7,
    time=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
    key=TENANT.hex,
    data=b"",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    principal="tenants/acme/users/1",
    correlation_id="r-1",
)


def read(headers, key=KEY, value=b""):
    return from_record(tuple(headers), key, value)


def with_header(name, value):
    return [(n, value if n == name else v) for n, v in to_headers(EVENT, log=1)]


def test_an_event_is_read_back_as_it_was_written():
    assert read(to_headers(EVENT, log=3)) == EVENT


def test_the_attributes_carry_their_cloudevents_names():
    names = {name for name, _ in to_headers(EVENT, log=1)}
    assert names == {
        "ce_specversion",
        "ce_id",
        "ce_type",
        "ce_source",
        "ce_time",
        "content-type",
        "tenantid",
        "epoch",
        "traceparent",
        "ce_principal",
        "ce_requestid",
        "log",
    }


@pytest.mark.parametrize(
    "without",
    [replace(EVENT, traceparent=""), replace(EVENT, principal=""), replace(EVENT, correlation_id="")],
)
def test_what_is_not_known_of_an_event_is_left_out(without):
    assert len(to_headers(without, log=1)) == len(to_headers(EVENT, log=1)) - 1
    assert read(to_headers(without, log=1)) == without


@pytest.mark.parametrize(
    "name",
    ["ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "content-type", "tenantid", "epoch"],
)
def test_a_missing_attribute_is_named(name):
    with pytest.raises(Poison, match=f"{name} is missing"):
        read((n, v) for n, v in to_headers(EVENT, log=1) if n != name)


def test_all_problems_are_reported_at_once():
    with pytest.raises(Poison) as refused:
        read([("ce_id", b"x"), ("tenantid", b"\xff"), ("epoch", b"-1")])
    assert refused.value.reason == "MALFORMED_RECORD"
    assert len(refused.value.problems) == 8


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("ce_id", b"0190b0a0-1111-4000-8000-000000000002", "no UUIDv7"),
        ("ce_id", b"0190B0A0-1111-7000-8000-000000000002", "canonical form"),
        ("ce_time", b"2026-01-02T03:04:05", "RFC 3339"),
        ("ce_time", b"yesterday", "RFC 3339"),
        ("epoch", b"9223372036854775808", "2\\^63"),
        ("epoch", "²".encode(), "not printable ASCII"),
        ("ce_principal", b"users/\0", "not printable ASCII"),
        ("ce_principal", b"x" * 257, "longer than 256"),
        ("ce_requestid", b"r\n1", "not printable ASCII"),
        ("ce_requestid", b"x" * 65, "longer than 64"),
        ("ce_specversion", b"0.3", "is not 1.0"),
        ("content-type", b"application/json", "is not application/protobuf"),
        ("ce_source", b"x" * 1025, "longer than 1024"),
    ],
)
def test_an_unreadable_attribute_is_refused(name, value, problem):
    with pytest.raises(Poison, match=problem):
        read(with_header(name, value))


def test_an_attribute_given_twice_is_refused():
    with pytest.raises(Poison, match="tenantid is there twice"):
        read([*to_headers(EVENT, log=1), ("tenantid", str(UUID(int=1)).encode())])


@pytest.mark.parametrize("key", [None, b"", UUID(int=9).hex.encode(), TENANT.hex.encode() + b"x", b"\xff"])
def test_a_key_that_is_not_of_the_tenant_is_refused(key):
    with pytest.raises(Poison):
        read(to_headers(EVENT, log=1), key=key)


def test_a_key_may_be_an_aggregate_of_the_tenant():
    key = f"{TENANT.hex}/incidents/1"
    assert read(to_headers(EVENT, log=1), key=key.encode()).key == key


def test_data_beyond_the_limit_are_refused():
    with pytest.raises(Poison, match="data is longer"):
        read(to_headers(EVENT, log=1), value=bytes(MAX_DATA_BYTES + 1))


@pytest.mark.parametrize(("value", "log"), [(b"12", 12), (b"-1", None), (b"9999999999", None), (b"x", None)])
def test_the_incarnation_is_read_or_ignored(value, log):
    assert log_of((("log", value),)) == log


def test_a_source_that_does_not_own_the_topic_is_refused():
    record = Received(
        topic="tlsy.identity",
        partition=0,
        offset=0,
        time=EVENT.time,
        key=EVENT.key.encode(),
        value=b"",
        headers=to_headers(EVENT, log=1),
    )
    with pytest.raises(Poison) as refused:
        decode_event(record)
    assert refused.value.reason == "FOREIGN_SOURCE"
    assert decode_event(replace(record, topic="tlsy.ingestion")) == EVENT


def test_data_that_are_no_such_message_are_refused():
    with pytest.raises(Poison) as refused:
        parse(replace(EVENT, data=b"\xff\xff"))
    assert refused.value.reason == "UNREADABLE_DATA"
