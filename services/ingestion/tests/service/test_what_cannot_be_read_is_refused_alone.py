"""What a client of ours would never send, byte by byte: from the wire to the answer."""

from __future__ import annotations

import math
import re

import grpc
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
from tlsy.contracts.ingestion.v1.encoded_pb2 import EncodedRequest
from tlsy.rpc.errors import InvalidArgument, ServiceError

SERVICE = pb.DESCRIPTOR.services_by_name["IngestionService"]
ACCEPTED, REJECTED = pb.OUTCOME_ACCEPTED, pb.OUTCOME_REJECTED
#: Parts of an event that nobody can read: a source, a label's key and its value that are no UTF-8, a label
#: that is no message, a length beyond the end, a number that does not end, a group that does not, groups in
#: groups.
UNREADABLE = [
    b"\x0a\x01\xff",
    b"\x4a\x03\x0a\x01\xff",
    b"\x4a\x06\x0a\x01k\x12\x01\xff",
    b"\x4a\x02\x0a\x05",
    b"\x0a\x05a",
    b"\x18" + b"\xff" * 11,
    b"\xa3\x06",
    b"\xa3\x06" * 101 + b"\xa4\x06" * 101,
]
#: An unknown field that holds itself as often as one may; in the record that tells of it, once too often.
DEEPEST = b"\xa3\x06" * 100 + b"\xa4\x06" * 100


@pytest.fixture
async def tenant(world):
    return await world.installation.provisioned_tenant(modules=frozenset({"supervision"}))


@pytest.fixture
async def send(world, tenant):
    """Calls with a request as it is, and gives what was answered or raised."""
    host = await world.replica()
    channel = world.around.dial(host, SERVICE, world.around.token(tenant, "agent"))
    ingest = channel.unary_unary(
        "/tlsy.ingestion.v1.IngestionService/IngestEvents",
        response_deserializer=pb.IngestEventsResponse.FromString,
    )

    async def call(request: bytes):
        try:
            return await ingest(request)
        except grpc.aio.AioRpcError as error:
            return ServiceError.from_rpc_error(error)

    return call


def batch(tenant, events):
    return EncodedRequest(parent=f"tenants/{tenant.slug}", events=events).SerializeToString()


async def stored(world, tenant):
    async with world.installation.tenancy("ingestion").transaction(tenant.context, write=False) as tx:
        return [row[0] for row in await tx.fetch("select event_id from events order by event_id::int")]


async def test_an_event_that_cannot_be_read_is_rejected_and_the_others_are_stored(
    world, tenant, send, make_events
):
    good = [event.SerializeToString() for event in make_events(500)]
    events = list(good)
    for place, part in enumerate(UNREADABLE):
        events[place * 50 + 7] += part
    answer = await send(batch(tenant, events))
    wrong = [place * 50 + 7 for place in range(len(UNREADABLE))]
    assert [place for place, outcome in enumerate(answer.outcomes) if outcome != ACCEPTED] == wrong
    assert [(r.index, r.reason) for r in answer.rejections] == [(n, "EVENT_UNREADABLE") for n in wrong]
    assert "Encoded" not in answer.rejections[0].message
    assert await stored(world, tenant) == [str(n) for n in range(500) if n not in wrong]


async def test_what_can_be_read_has_the_answer_that_it_had(world, tenant, send, make_events):
    unknown, nul, nan, infinite, good = [event.SerializeToString() for event in make_events(5)]
    unknown += b"\xa0\x06\x01" + DEEPEST
    nul += pb.Event(subject="a\0b").SerializeToString()
    nan += pb.Event(value=math.nan).SerializeToString()
    infinite += pb.Event(value=-math.inf).SerializeToString()
    answer = await send(batch(tenant, [unknown, nul, b"", nan, infinite, good]))
    assert list(answer.outcomes) == [ACCEPTED, *[REJECTED] * 4, ACCEPTED]
    assert [(r.index, r.reason) for r in answer.rejections] == [
        (1, "SUBJECT_INVALID"),
        (2, "SOURCE_INVALID"),
        (2, "ID_INVALID"),
        (2, "TYPE_INVALID"),
        (2, "TIME_MISSING"),
        (3, "VALUE_NOT_FINITE"),
        (4, "VALUE_NOT_FINITE"),
    ]
    assert await stored(world, tenant) == ["0", "4"]


async def test_a_request_that_cannot_be_read_says_from_which_event_on(world, tenant, send, make_events):
    events = [event.SerializeToString() for event in make_events(3)]
    whole = batch(tenant, events)
    cases = {
        whole[:-1]: "events[2]",
        whole + b"\x12\x05a": "events[3]",
        batch(tenant, []) + b"\x07" + batch(tenant, events): "events[0]",
        batch(tenant, events[:1]) + b"\x18" + b"\xff" * 11: "events[1]",
        batch(tenant, events[:2]) + b"\x0a\x01\xff": "parent",
    }
    for request, field in cases.items():
        refused = await send(request)
        assert (type(refused), refused.reason) == (InvalidArgument, "REQUEST_UNREADABLE")
        assert [violation.field for violation in refused.violations] == [field]
        assert "Encoded" not in f"{refused.message} {refused.violations[0].description}"
    assert not await stored(world, tenant)


def _lengths(parts):
    return parts.map(lambda part: bytes([0x12, len(part)]) + part)


_JUNK = st.one_of(
    st.sampled_from([*UNREADABLE[:7], b"\x0a\x01a", b"\x19" + b"\x01" * 8]), st.binary(max_size=40)
)
_REQUESTS = st.lists(
    st.one_of(
        _JUNK, _lengths(_JUNK), _lengths(st.lists(_JUNK, max_size=3).map(b"".join).map(lambda b: b[:127]))
    ),
    max_size=6,
).map(b"".join)


def answers_of(request):
    """How many events there are to be answered for; none, if the request cannot be read."""
    try:
        return len(EncodedRequest.FromString(request).events)
    except DecodeError:
        return None


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(parts=_REQUESTS)
@example(parts=b"\x12\x00\x1b\x12\x00\x1c\x12\x05")
async def test_whatever_is_sent_is_answered_per_event_or_refused_with_a_place(tenant, send, parts):
    request = batch(tenant, [b""]) + parts
    answer, count = await send(request), answers_of(request)
    if isinstance(answer, pb.IngestEventsResponse):
        assert len(answer.outcomes) == count
        rejected = {place for place, outcome in enumerate(answer.outcomes) if outcome == REJECTED}
        assert {problem.index for problem in answer.rejections} == rejected
        assert all(problem.reason and problem.message for problem in answer.rejections)
    else:
        assert type(answer) is InvalidArgument
        (violation,) = answer.violations
        if count is None:
            assert answer.reason == "REQUEST_UNREADABLE"
            assert re.fullmatch(r"parent|events\[\d+\]", violation.field)
        else:
            assert (violation.field, violation.reason) == ("parent", "RESOURCE_NAME_INVALID")
