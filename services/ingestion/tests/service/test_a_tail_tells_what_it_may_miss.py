from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import grpc
import pytest

from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
from tlsy.rpc.errors import ServiceError, Unavailable


async def stored(stub, parent, events):
    answer = await stub.IngestEvents(pb.IngestEventsRequest(parent=parent, events=events))
    assert set(answer.outcomes) == {pb.OUTCOME_ACCEPTED}


async def found_since(stub, parent, since, events):
    request = pb.QueryEventsRequest(parent=parent, page_size=100)
    request.start_time.FromDatetime(since)
    request.end_time.FromMicroseconds(events[-1].time_us + 1)
    return [event.id for event in (await stub.QueryEvents(request)).events]


async def test_a_tail_whose_log_is_lost_ends_and_tells_since_when_events_may_be_missing(world, make_events):
    """A query from that time on finds those stored without a broker; another tail has the later ones."""
    tenant = await world.installation.provisioned_tenant(modules=frozenset({"supervision"}))
    host = await world.replica()
    stub, parent = world.stub(host, tenant, "agent", "viewer"), f"tenants/{tenant.slug}"
    tail = stub.TailEvents(pb.TailEventsRequest(parent=parent))
    async with asyncio.timeout(60):
        await tail.read()
        before, meanwhile, after = (make_events(3, first=first) for first in (0, 10, 20))
        await stored(stub, parent, before)
        assert [event.id for event in (await tail.read()).events] == ["0", "1", "2"]
        await world.broker.kill()
        await stored(stub, parent, meanwhile)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await tail.read()
        told = ServiceError.from_rpc_error(caught.value)
        assert (type(told), told.reason, told.retry_after_s) == (Unavailable, "TAIL_INTERRUPTED", 1.0)
        since = datetime.fromisoformat(told.metadata["since"])
        assert "QueryEvents" in told.message
        assert since < datetime.now(UTC)
        assert {"10", "11", "12"} <= set(await found_since(stub, parent, since, meanwhile))
        again = stub.TailEvents(pb.TailEventsRequest(parent=parent, source="later"))
        await world.broker.start()
        assert await again.read() == pb.TailEventsResponse()
        for event in after:
            event.source = "later"
        await stored(stub, parent, after)
        assert [event.id for event in (await again.read()).events] == ["20", "21", "22"]
