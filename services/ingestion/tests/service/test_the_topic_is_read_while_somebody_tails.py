from __future__ import annotations

import asyncio

from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb


async def until_followed(host, wanted):
    """Wait until the replica reads the topic, or until it does not."""
    async with asyncio.timeout(60):
        while is_followed(host) != wanted:
            await asyncio.sleep(0.02)


def is_followed(host):
    labels = {"name": "live-tails"}
    return host.telemetry.registry.get_sample_value("tlsy_broadcast_stale_seconds", labels) is not None


async def test_a_tail_after_none_misses_nothing(world, make_events):
    tenant = await world.installation.provisioned_tenant(modules=frozenset({"supervision"}))
    host = await world.replica()
    stub, parent = world.stub(host, tenant, "agent", "viewer"), f"tenants/{tenant.slug}"
    for turn in range(2):
        unseen, seen = make_events(3, source=f"before-{turn}"), make_events(3, source=f"after-{turn}")
        await stub.IngestEvents(pb.IngestEventsRequest(parent=parent, events=unseen))
        assert not is_followed(host)
        assert world.replicas[0].ready()
        tail = stub.TailEvents(pb.TailEventsRequest(parent=parent, source=f"after-{turn}"))
        async with asyncio.timeout(60):
            assert await tail.read() == pb.TailEventsResponse()
            await stub.IngestEvents(pb.IngestEventsRequest(parent=parent, events=seen))
            assert list((await tail.read()).events) == seen
        await until_followed(host, True)
        tail.cancel()
        await until_followed(host, False)
