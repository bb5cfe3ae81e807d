from __future__ import annotations

import time

from google.protobuf.timestamp_pb2 import Timestamp

from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb

MODULES = frozenset({"supervision"})
#: What gRPC clients take of an answer unless they are told otherwise.
CLIENTS_TAKE_BYTES = 4 * 1024 * 1024


async def test_a_page_of_large_events_ends_where_a_client_would_refuse_it(world, make_events):
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    stub = world.stub(await world.replica(), tenant, "agent", "viewer")
    data = b'{"text": "%b"}' % (b"x" * 16_000)
    for first in range(0, 600, 200):
        events = make_events(200, first=first, data=data)
        await stub.IngestEvents(pb.IngestEventsRequest(parent=f"tenants/{tenant.slug}", events=events))
    now_s = int(time.time())
    request = pb.QueryEventsRequest(
        parent=f"tenants/{tenant.slug}",
        start_time=Timestamp(seconds=now_s - 60),
        end_time=Timestamp(seconds=now_s + 60),
        page_size=1000,
    )
    found: list[str] = []
    while not found or request.page_token:
        page = await stub.QueryEvents(request)
        assert page.ByteSize() <= CLIENTS_TAKE_BYTES
        found += [event.id for event in page.events]
        request.page_token = page.next_page_token
    assert sorted(found, key=int) == [str(number) for number in range(600)]
