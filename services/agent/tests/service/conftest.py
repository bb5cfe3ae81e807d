from __future__ import annotations

import asyncio
import os
from contextlib import closing

import pytest
from grpc import StatusCode, aio

from tlsy.agent.adapters.buffer import DiskBuffer
from tlsy.agent.adapters.ingest import IngestionServer
from tlsy.agent.handlers.deliver import Deliverer
from tlsy.agent.settings import Endpoints
from tlsy.contracts.identity.v1 import identity_pb2, identity_pb2_grpc
from tlsy.contracts.ingestion.v1 import ingestion_pb2, ingestion_pb2_grpc
from tlsy.rpc.errors import STATUS_KEY, ServiceError


class StandIn(identity_pb2_grpc.IdentityServiceServicer, ingestion_pb2_grpc.IngestionServiceServicer):
    """Both services on one socket. It answers what the test scripts, then accepts everything.

    What it is to answer is a response, or an error.
    """

    def __init__(self, target):
        self.target = target
        self.tokens = 0
        self.expired = set()
        self.revoked = False
        self.lifetime_s = 600
        self.script = []
        self.batches = []
        self._server = None

    async def ExchangeApiKey(self, request, context):  # noqa: N802  the proto's
        assert (request.api_key, list(request.audience)) == ("the-key", ["ingestion"])
        self.tokens += 1
        if self.revoked:
            await context.abort(StatusCode.UNAUTHENTICATED, "no such key")
        answer = identity_pb2.ExchangeApiKeyResponse(tenant="tenants/firm")
        answer.token.access_token = f"token-{self.tokens}"
        answer.token.expires_in.FromSeconds(self.lifetime_s)
        return answer

    async def IngestEvents(self, request, context):  # noqa: N802  the proto's
        assert request.parent == "tenants/firm"
        token = dict(context.invocation_metadata())["authorization"].removeprefix("Bearer ")
        if token in self.expired:
            await context.abort(StatusCode.UNAUTHENTICATED, "too old")
        ids = [event.id for event in request.events]
        self.batches.append(ids)
        answer = self.script.pop(0) if self.script else accepted(len(ids))
        if isinstance(answer, ServiceError):
            status = answer.to_status("tlsy.ingestion").SerializeToString()
            await context.abort(answer.code, answer.message, ((STATUS_KEY, status),))
        return answer

    async def up(self):
        self._server = aio.server()
        identity_pb2_grpc.add_IdentityServiceServicer_to_server(self, self._server)
        ingestion_pb2_grpc.add_IngestionServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.target)
        await self._server.start()

    async def down(self):
        if self._server is not None:
            await self._server.stop(0)


def accepted(count):
    return ingestion_pb2.IngestEventsResponse(outcomes=[ingestion_pb2.OUTCOME_ACCEPTED] * count)


class Agent:
    """The delivering half of an agent, on the test's clock."""

    def __init__(self, buffer, deliverer):
        self.buffer = buffer
        self.deliverer = deliverer

    def collected(self, *ids):
        events = [
            ingestion_pb2.Event(source="a", id=name, time_us=1, type="host.cpu").SerializeToString()
            for name in ids
        ]
        self.buffer.append(events)

    def waiting(self):
        records, _ = self.buffer.peek(10_000, 10**8)
        return [ingestion_pb2.Event.FromString(record).id for record in records]

    async def deliver(self):
        assert await self.deliverer.deliver_batch(asyncio.Event())


@pytest.fixture
async def stand_in(tmp_path):
    server = StandIn(f"unix:{tmp_path}/s")  # type: ignore[abstract]  # all that an agent asks
    await server.up()
    yield server
    await server.down()


@pytest.fixture
async def server(stand_in, tmp_path, fake_clock):
    key_file = tmp_path / "key"
    key_file.write_text("the-key\n")
    endpoints = Endpoints(identity=stand_in.target, ingestion=stand_in.target)
    server = IngestionServer(endpoints, key_file, fake_clock, os.urandom)
    await server.start()
    yield server
    await server.stop(0)


@pytest.fixture
def agent(server, tmp_path, fake_clock):
    with closing(DiskBuffer(tmp_path / "buffer", 10**7)) as buffer:
        yield Agent(buffer, Deliverer(buffer, server, fake_clock, lambda: 0.0, asyncio.Event()))


@pytest.fixture
def asleep(fake_clock):
    """Returns once somebody sleeps on the test's clock."""

    async def wait():
        async with asyncio.timeout(60):
            while fake_clock.sleepers == 0:
                await asyncio.sleep(0.001)

    return wait
