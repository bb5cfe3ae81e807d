from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
from tlsy.rpc.errors import ServiceError

MODULES = frozenset({"supervision"})
DAY_S = 86_400


def at(seconds, nanos=0):
    return Timestamp(seconds=int(seconds), nanos=nanos)


@pytest.fixture
async def tenant(world):
    return await world.installation.provisioned_tenant(modules=MODULES)


@pytest.fixture
async def stub(world, tenant):
    return world.stub(await world.replica(), tenant, "agent", "viewer")


async def refused(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return [(v.field, v.reason) for v in ServiceError.from_rpc_error(caught.value).violations]


@pytest.mark.parametrize(
    ("wanted", "is_wanted"),
    [
        ({}, lambda source, kind, host: True),
        ({"source": "agent/1"}, lambda source, kind, host: source == "agent/1"),
        ({"type": "host.disk"}, lambda source, kind, host: kind == "host.disk"),
        ({"labels": {"host": "é"}}, lambda source, kind, host: host == "é"),
        (
            {"source": "agent/0", "type": "host.cpu", "labels": {"host": "b"}},
            lambda source, kind, host: (source, kind, host) == ("agent/0", "host.cpu", "b"),
        ),
        ({"source": "agent/1", "labels": {"host": "b", "rack": "2"}}, lambda source, kind, host: False),
    ],
)
async def test_a_query_finds_what_it_asks_for_and_nothing_else(stub, tenant, make_events, wanted, is_wanted):
    kinds = [
        (f"agent/{n % 2}", ("host.cpu", "host.disk")[n % 3 == 0], ("b", "é")[n % 5 == 0]) for n in range(40)
    ]
    sent = [
        event
        for number, (source, kind, host) in enumerate(kinds)
        for event in make_events(1, first=number, source=source, type=kind, labels={"host": host})
    ]
    await stub.IngestEvents(pb.IngestEventsRequest(parent=f"tenants/{tenant.slug}", events=sent))
    now_s = sent[0].time_us // 1_000_000
    request = pb.QueryEventsRequest(
        parent=f"tenants/{tenant.slug}",
        start_time=at(now_s - 60),
        end_time=at(now_s + 60),
        page_size=3,
        **wanted,
    )
    found = []
    while True:
        page = await stub.QueryEvents(request)
        assert len(page.events) <= 3
        found += page.events
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    expected = [event for event, kind in zip(sent, kinds, strict=True) if is_wanted(*kind)]
    assert [event.id for event in found] == [event.id for event in expected[::-1]]


IMPOSSIBLE: Any = [
    (at(100), at(100), {}, [("end_time", "RANGE_EMPTY")]),
    (at(0), at(401 * DAY_S), {}, [("end_time", "RANGE_TOO_LONG")]),
    (at(2**60), at(5), {}, [("start_time", "TIME_OUT_OF_RANGE")]),
    (
        at(-(2**62)),
        at(5, 2_000_000_000),
        {},
        [("start_time", "TIME_OUT_OF_RANGE"), ("end_time", "TIME_OUT_OF_RANGE")],
    ),
    (
        at(0),
        at(0),
        {"source": "a\0", "labels": {"k": "\0"}},
        [("end_time", "RANGE_EMPTY"), ("source", "FILTER_INVALID"), ("labels", "FILTER_INVALID")],
    ),
]


async def test_a_query_that_cannot_be_is_refused_with_all_that_is_wrong(stub, tenant):
    for start, end, more, violations in IMPOSSIBLE:
        request = pb.QueryEventsRequest(
            parent=f"tenants/{tenant.slug}", start_time=start, end_time=end, **more
        )
        assert await refused(stub.QueryEvents(request)) == violations
