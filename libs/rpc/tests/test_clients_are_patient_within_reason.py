"""What our own client side does: tokens, deadlines, retries, and the metadata of a hop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from libs.rpc.tests.world import SERVICES, World, bearer, refused
from tlsy.contracts.identity.v1 import identity_pb2 as identity
from tlsy.contracts.identity.v1 import identity_pb2_grpc
from tlsy.contracts.ingestion.v1 import ingestion_pb2_grpc
from tlsy.contracts.ingestion.v1.ingestion_pb2 import Event, IngestEventsRequest, TailEventsRequest
from tlsy.rpc.channel import CallPolicy, dial, dial_bearer, may_repeat, service_config, service_name
from tlsy.rpc.errors import DeadlineExceeded, FailedPrecondition, ResourceExhausted, TooLarge, Unavailable
from tlsy.rpc.keys import generate_key

if TYPE_CHECKING:
    from tlsy.rpc.server import RpcServer

DESCRIPTOR = SERVICES["identity"][0]
READ = identity.GetUserRequest(name="tenants/acme/users/u")
CREATE = identity.CreateUserRequest(parent="tenants/acme", user=identity.User(email="a@b"))
EXCHANGE = identity.ExchangeTokenRequest(target_tenant="tenants/other", reason="x")


class Failing:
    """Fails the first calls, then not."""

    def __init__(self, times: int, error: Exception) -> None:
        self.left = times
        self.error = error
        self.reached = 0

    async def __call__(self) -> None:
        self.reached += 1
        if self.left:
            self.left -= 1
            raise self.error


@pytest.fixture
async def patient(world, server):
    async def token():
        return world.token("client-admin")

    policy = CallPolicy(timeout_s=5, attempts=3, max_wait_s=0.5)
    channel = dial_bearer(
        world.host.listen, DESCRIPTOR, token, clock=world.clock, random=os.urandom, policy=policy
    )
    async with channel:
        yield identity_pb2_grpc.IdentityServiceStub(channel)


async def test_a_read_is_sent_again_while_the_server_is_unavailable(world, patient):
    world.identity.act = failing = Failing(2, Unavailable("AWAY", "x", retry_after_s=0.01))
    assert (await patient.GetUser(READ)).name == READ.name
    assert failing.reached == 3


async def test_a_call_is_sent_again_whatever_its_size(world, server):
    async def token():
        return world.token("agent")

    world.ingestion.act = failing = Failing(2, Unavailable("AWAY", "x", retry_after_s=0.01))
    largest = IngestEventsRequest(parent="tenants/acme", events=[Event(data=bytes(16 * 1024))] * 255)
    async with dial_bearer(
        world.host.listen, SERVICES["ingestion"][0], token, clock=world.clock, random=os.urandom
    ) as channel:
        await ingestion_pb2_grpc.IngestionServiceStub(channel).IngestEvents(largest)
    assert failing.reached == 3


async def test_an_unavailable_server_gets_the_time_it_asked_for(world, patient):
    world.identity.act = failing = Failing(1, Unavailable("AWAY", "x", retry_after_s=0.6))
    before = world.clock.monotonic()
    await patient.GetUser(READ)
    assert failing.reached == 2
    assert world.clock.monotonic() - before >= 0.6


async def test_a_limited_call_waits_as_long_as_it_is_told(world, patient):
    world.identity.act = failing = Failing(2, ResourceExhausted("RATE_LIMITED", "x", retry_after_s=0.05))
    before = world.clock.monotonic()
    await patient.GetUser(READ)
    assert failing.reached == 3
    assert world.clock.monotonic() - before >= 0.1


async def test_patience_has_an_end(world, patient):
    world.identity.act = failing = Failing(99, ResourceExhausted("RATE_LIMITED", "x", retry_after_s=0.01))
    assert (await refused(patient.GetUser(READ))).reason == "RATE_LIMITED"
    assert failing.reached == 3


@pytest.mark.parametrize(
    "error",
    [
        ResourceExhausted("QUOTA", "x", retry_after_s=1.0),
        TooLarge("QUOTA", "x"),
        FailedPrecondition("NOT_WRITABLE", "x"),
    ],
)
async def test_what_waiting_does_not_help_is_not_sent_again(world, patient, error):
    world.identity.act = failing = Failing(1, error)
    await refused(patient.GetUser(READ))
    assert failing.reached == 1


@pytest.mark.parametrize(
    "error",
    [Unavailable("AWAY", "x", retry_after_s=0.01), ResourceExhausted("R", "x", retry_after_s=0.01)],
)
async def test_what_may_not_be_done_twice_is_not_sent_again(world, patient, error):
    world.identity.act = failing = Failing(1, error)
    await refused(patient.ExchangeToken(EXCHANGE))
    assert failing.reached == 1


async def test_a_mutation_is_sent_again_under_one_request_id(world, patient):
    world.identity.act = failing = Failing(1, Unavailable("AWAY", "x", retry_after_s=0.01))
    await patient.CreateUser(CREATE)
    assert failing.reached == 2
    ids = {call.request_id for call in world.identity.calls}
    assert len(ids) == 1
    assert isinstance(ids.pop(), UUID)
    assert CREATE.request_id == ""


@pytest.fixture
async def replicas(directory):
    """Two servers of two worlds, and a client of both."""
    worlds = [World(directory, key=key) for key in [generate_key()] * 2]
    async with AsyncExitStack() as stack:
        servers = []
        for world in worlds:
            world.host = replace(world.host, listen="127.0.0.1:0")
            servers.append(world.server())
            await servers[-1].start()
            stack.push_async_callback(servers[-1].stop, 1)

        async def token():
            return worlds[0].token("client-admin")

        target = "ipv4:" + ",".join(f"127.0.0.1:{server.port}" for server in servers)
        channel = dial_bearer(target, DESCRIPTOR, token, clock=worlds[0].clock, random=os.urandom)
        yield worlds, servers, identity_pb2_grpc.IdentityServiceStub(await stack.enter_async_context(channel))


async def test_what_a_stopping_server_leaves_unread_is_done_by_another_one(replicas):
    worlds, servers, stub = replicas
    begun: asyncio.Queue[RpcServer] = asyncio.Queue()
    for world, server in zip(worlds, servers, strict=True):
        world.identity.act = partial(begun.put, server)
    calls = [asyncio.ensure_future(stub.CreateUser(CREATE)) for _ in range(30)]
    await (await begun.get()).stop(5)
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    done = Counter(call.request_id for world in worlds for call in world.identity.calls)
    assert (len(done), max(done.values())) == (30, 1)


async def test_what_its_caller_gives_up_is_not_sent_again(world, patient):
    entered, left = asyncio.Event(), asyncio.Event()

    async def last() -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    world.identity.act = last
    call = patient.GetUser(READ)
    await entered.wait()
    call.cancel()
    async with asyncio.timeout(60):
        await left.wait()
    world.identity.act = None
    await patient.GetUser(READ)
    assert len(world.identity.calls) == 2


async def test_a_call_gets_the_policys_deadline(world, server):
    async def forever() -> None:
        await asyncio.Event().wait()

    world.identity.act = forever

    async def token():
        return world.token("client-admin")

    policy = CallPolicy(timeout_s=0.1)
    async with dial_bearer(
        world.host.listen, DESCRIPTOR, token, clock=world.clock, random=os.urandom, policy=policy
    ) as channel:
        error = await refused(identity_pb2_grpc.IdentityServiceStub(channel).GetUser(READ))
    assert isinstance(error, DeadlineExceeded)


async def test_a_server_that_is_slow_to_greet_is_waited_for(world):
    """One attempt lasts as long as the call may, also of a call that is not sent again."""

    async def token():
        return world.token("client-admin")

    # Connections to it are made, and nobody takes them.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with dial_bearer(
            f"127.0.0.1:{silent.getsockname()[1]}",
            DESCRIPTOR,
            token,
            clock=world.clock,
            random=os.urandom,
            policy=CallPolicy(timeout_s=1),
        ) as channel:
            error = await refused(identity_pb2_grpc.IdentityServiceStub(channel).ExchangeToken(EXCHANGE))
    assert isinstance(error, DeadlineExceeded)


async def test_a_service_calls_with_its_own_token(world, server):
    async with dial(world.host, DESCRIPTOR, world.service_tokens()) as channel:
        stub = identity_pb2_grpc.IdentityServiceStub(channel)
        await stub.ListRevocations(identity.ListRevocationsRequest())
    assert world.identity.calls[0].principal == "services/ingestion"


async def test_a_peer_without_an_address_is_named(world):
    with pytest.raises(KeyError, match="ingestion"):
        dial(world.host, SERVICES["ingestion"][0], world.service_tokens())


async def test_a_hop_carries_trace_request_id_and_deadline(world, client):
    """A handler that calls on: the second call is known as part of the first."""
    hops = []
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-00"

    async def call_on() -> None:
        hops.append(world.identity.calls[-1])
        if len(hops) == 1:
            async with dial(world.host, DESCRIPTOR, world.service_tokens()) as channel:
                stub = identity_pb2_grpc.IdentityServiceStub(channel)
                await stub.ListRevocations(identity.ListRevocationsRequest())

    world.identity.act = call_on
    metadata = (*bearer(world.token("client-admin")), ("x-request-id", "r-1"), ("traceparent", trace))
    await client.identity.GetUser(READ, metadata=metadata, timeout=20)
    first, second = hops
    assert (second.correlation_id, second.trace_id, second.traceparent) == ("r-1", "a" * 32, trace)
    assert first.principal != second.principal
    assert second.deadline <= first.deadline + 0.1


async def test_a_stream_gets_a_token_too(world, server):
    async def token():
        return world.token("viewer")

    async with dial_bearer(
        world.host.listen, SERVICES["ingestion"][0], token, clock=world.clock, random=os.urandom
    ) as channel:
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
        request = TailEventsRequest()
        assert [answer.missed async for answer in stub.TailEvents(request)] == [1, 2]


def test_what_may_be_repeated_is_read_from_the_proto():
    repeatable = {method.name for method in DESCRIPTOR.methods if may_repeat(method)}
    assert {"GetUser", "ListUsers", "CreateUser", "ExchangeApiKey"} <= repeatable
    assert not {"LogIn", "ExchangeToken", "SetPassword", "CreateApiKey"} & repeatable


def test_grpc_retries_what_may_be_repeated_and_nothing_else():
    (only,) = service_config(DESCRIPTOR, CallPolicy())["methodConfig"]
    names = {name["method"] for name in only["name"]}
    assert names == {method.name for method in DESCRIPTOR.methods if may_repeat(method)}
    assert only["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE", "CANCELLED"]


def test_a_service_is_known_by_its_proto():
    assert service_name(SERVICES["registry"][0]) == "tenant-registry"
