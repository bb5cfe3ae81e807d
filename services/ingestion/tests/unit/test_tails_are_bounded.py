from __future__ import annotations

import gc
import os
from contextlib import AsyncExitStack, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from tlsy.contracts.cloudevents import CloudEvent
from tlsy.contracts.events import EVENTS_ACCEPTED
from tlsy.contracts.ingestion.events.v1 import events_pb2
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
from tlsy.ingestion.handlers.tail_events import (
    MAX_TAILS,
    MAX_TAILS_PER_TENANT,
    Tail,
    TailEvents,
)
from tlsy.rpc.errors import ResourceExhausted
from tlsy.runtime.ids import TenantId


def events(count, size):
    return [pb.Event(source="s", id=str(n), type="wanted", data=b"x" * size) for n in range(count)]


def anything(event):
    return True


def accepted(tenant_id, record):
    return CloudEvent(
        id=uuid4(),
        type=EVENTS_ACCEPTED,
        source="ingestion",
        tenant_id=tenant_id,
        epoch=1,
        time=datetime(2026, 1, 1, tzinfo=UTC),
        key=tenant_id.hex,
        data=record.SerializeToString(),
    )


async def drained(tail):
    """Everything that waits, and how many were missed."""
    found, missed = await tail.next()
    while len(found) % 500 == 0:
        more, again = await tail.next()
        found, missed = found + more, missed + again
    return found, missed


@pytest.mark.parametrize(("size", "most"), [(0, 16_000), (16_000, 65)])
async def test_a_tail_holds_so_many_bytes_and_tells_what_it_missed(size, most):
    tail, sent = Tail(anything), events(20_000 if size == 0 else 100, size)
    tail.offer(sent)
    found, missed = await drained(tail)
    assert found == sent[: len(found)]
    assert len(found) + missed == len(sent)
    assert 0 < len(found) <= most


async def test_after_a_pause_a_tail_goes_on_and_says_nothing_twice():
    tail = Tail(anything)
    tail.offer(events(100, 16_000))
    _, missed = await drained(tail)
    assert missed > 0
    tail.offer(events(2, 10))
    assert await tail.next() == (events(2, 10), 0)


def memory_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells a process's memory so")
def test_a_wanted_event_does_not_keep_its_record_in_memory():
    tail = Tail(lambda event: event.type == "wanted")
    record = events_pb2.EventsAccepted(events=events(1, 10))
    record.events.extend(pb.Event(type="other", data=b"x" * 9_000) for _ in range(50))
    data = record.SerializeToString()
    before = memory_bytes()
    for _ in range(300):
        tail.offer(list(events_pb2.EventsAccepted.FromString(data).events))
    gc.collect()
    assert memory_bytes() - before < 100 * len(data)


async def test_a_tail_gets_its_tenants_events_alone():
    tails, ours, others = TailEvents(nullcontext), TenantId(UUID(int=1)), TenantId(UUID(int=2))
    async with tails.open(ours, anything) as tail, tails.open(others, anything):
        for tenant_id in (others, ours):
            record = events_pb2.EventsAccepted(events=[pb.Event(source=str(tenant_id))])
            tails.on_event(accepted(tenant_id, record))
        found, _ = await drained(tail)
    assert [event.source for event in found] == [str(ours)]


async def test_a_tenant_and_all_have_so_many_tails():
    tails = TailEvents(nullcontext)
    tenants = [TenantId(UUID(int=number)) for number in range(MAX_TAILS // MAX_TAILS_PER_TENANT + 1)]
    async with AsyncExitStack() as opened:
        for tenant_id in tenants[:-1]:
            for _ in range(MAX_TAILS_PER_TENANT):
                await opened.enter_async_context(tails.open(tenant_id, anything))
            with pytest.raises(ResourceExhausted, match="too many tails") as caught:
                await opened.enter_async_context(tails.open(tenant_id, anything))
            assert caught.value.reason == "TOO_MANY_TAILS"
        with pytest.raises(ResourceExhausted):
            await opened.enter_async_context(tails.open(tenants[-1], anything))
    async with tails.open(tenants[-1], anything):
        pass
