from __future__ import annotations

from dataclasses import replace

import grpc
import pytest

from libs.rpc.tests.world import SERVICES, World
from tlsy.contracts.identity.v1 import identity_pb2 as identity
from tlsy.contracts.identity.v1 import identity_pb2_grpc
from tlsy.rpc.channel import CallPolicy, dial
from tlsy.testkit.certificates import Authority

DESCRIPTOR = SERVICES["identity"][0]


@pytest.fixture
async def secured(directory):
    """A world whose server listens with mTLS, and the authority that it trusts."""
    authority = Authority(directory, "ours")
    world = World(directory)
    world.host = replace(world.host, listen="127.0.0.1:0", tls=authority.issue("server"))
    server = world.server()
    await server.start()
    listen, known_as = f"127.0.0.1:{server.port}", f"localhost:{server.port}"
    world.host = replace(world.host, service="ingestion", listen=listen, peers={"identity": known_as})
    yield world, authority
    await server.stop(0)


async def answer(world: World) -> identity.ListRevocationsResponse:
    policy = CallPolicy(timeout_s=2, attempts=2)
    async with dial(world.host, DESCRIPTOR, world.service_tokens(), policy) as channel:
        stub = identity_pb2_grpc.IdentityServiceStub(channel)
        return await stub.ListRevocations(identity.ListRevocationsRequest())


async def test_a_peer_with_our_certificate_is_answered(secured):
    world, authority = secured
    world.host = replace(world.host, tls=authority.issue("peer"))
    assert await answer(world) == identity.ListRevocationsResponse()


async def test_a_service_that_calls_itself_by_its_address_checks_the_name_it_is_known_by(secured):
    world, _ = secured
    world.host = replace(world.host, service="identity")
    assert await answer(world) == identity.ListRevocationsResponse()


@pytest.mark.parametrize("stranger", ["clear", "another authority"])
async def test_a_peer_without_our_certificate_is_not(secured, directory, stranger):
    world, authority = secured
    files = None
    if stranger == "another authority":
        files = replace(Authority(directory, "theirs").issue("peer"), ca_file=authority.file)
    world.host = replace(world.host, tls=files)
    with pytest.raises(grpc.aio.AioRpcError):
        await answer(world)
    assert world.identity.calls == []
