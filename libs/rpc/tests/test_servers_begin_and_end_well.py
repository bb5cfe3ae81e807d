from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from libs.rpc.tests.world import World, bearer, refused
from tlsy.contracts.identity.v1 import identity_pb2 as identity
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as ingestion
from tlsy.contracts.ingestion.v1 import ingestion_pb2_grpc

if TYPE_CHECKING:
    from tlsy.runtime.service import Readiness

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
REQUEST = identity.GetUserRequest(name="tenants/acme/users/u")


async def until_health_is(client, service: str, wanted: int) -> None:
    watch = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest(service=service))
    async with asyncio.timeout(60):
        async for told in watch:
            if told.status == wanted:
                return


@pytest.mark.parametrize("service", ["", "tlsy.identity.v1.IdentityService"])
async def test_health_follows_readiness(world, client, service):
    await until_health_is(client, service, SERVING)
    world.missing = ("the catalogue",)
    await until_health_is(client, service, NOT_SERVING)
    world.missing = ()
    await until_health_is(client, service, SERVING)


async def test_a_server_that_misses_something_is_not_serving_from_the_start(world):
    world.missing = ("the catalogue",)
    server = world.server()
    await server.start()
    async with grpc.aio.insecure_channel(world.host.listen) as channel:
        told = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert told.status == NOT_SERVING
    await server.stop(0)


async def test_the_services_are_listed_by_reflection(client):
    stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = await anext(aiter(stub.ServerReflectionInfo(iter([asked]))))
    names = {service.name for service in answer.list_services_response.service}
    assert {"tlsy.identity.v1.IdentityService", "grpc.health.v1.Health"} <= names


async def test_a_stop_lets_calls_finish(world, server, client):
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        entered.set()
        await leave.wait()

    world.identity.act = slow
    call = client.identity.GetUser(REQUEST, metadata=bearer(world.token("client-admin")))
    answered = asyncio.ensure_future(call)
    await entered.wait()
    stopping = asyncio.create_task(server.stop(5))
    await asyncio.sleep(0)
    leave.set()
    assert (await answered).name == REQUEST.name
    await stopping


async def test_a_stop_cuts_off_what_takes_longer_than_the_grace(world, server, client):
    entered = asyncio.Event()

    async def stuck() -> None:
        entered.set()
        await asyncio.Event().wait()

    world.identity.act = stuck
    call = client.identity.GetUser(REQUEST, metadata=bearer(world.token("client-admin")))
    failed = asyncio.create_task(refused(call))
    await entered.wait()
    await server.stop(0.05)
    assert (await failed).code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


async def test_a_stop_sends_readers_of_streams_elsewhere(world, server, client):
    async def forever() -> None:
        await asyncio.Event().wait()

    world.ingestion.act = forever
    request = ingestion.TailEventsRequest(parent="tenants/acme")
    stream = client.ingestion.TailEvents(request, metadata=bearer(world.token("viewer")))
    assert (await stream.read()).missed == 1
    started = asyncio.get_running_loop().time()
    await server.stop(10)
    assert asyncio.get_running_loop().time() - started < 5
    assert (await refused(stream.read())).reason == "SERVER_STOPPING"


async def test_a_stream_that_is_ended_while_it_sends_its_first_answer_tells_why(world, server, client):
    stopping = []
    world.ingestion.begin = lambda: stopping.append(asyncio.create_task(server.stop(10)))
    request = ingestion.TailEventsRequest(parent="tenants/acme")
    stream = client.ingestion.TailEvents(request, metadata=bearer(world.token("viewer")))
    async with asyncio.timeout(5):
        assert (await stream.read()).missed == 1
        assert (await refused(stream.read())).reason == "SERVER_STOPPING"
        await stopping[0]


async def test_a_stream_that_begins_while_the_server_drains_is_repeated_by_its_channel(
    world, server, log_lines
):
    policy = {
        "maxAttempts": 3,
        "initialBackoff": "0.01s",
        "maxBackoff": "0.01s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    server._interceptor.end_streams()
    async with grpc.aio.insecure_channel(world.host.listen, [("grpc.service_config", config)]) as channel:
        tail = ingestion_pb2_grpc.IngestionServiceStub(channel).TailEvents
        stream = tail(
            ingestion.TailEventsRequest(parent="tenants/acme"), metadata=bearer(world.token("viewer"))
        )
        assert (await refused(stream.read())).reason == "SERVER_STOPPING"
    assert [line["reason"] for line in log_lines.of("call refused")] == ["SERVER_STOPPING"] * 3


async def test_a_stop_does_not_wait_for_watchers_of_health(server, client):
    watch = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest())
    await watch.read()
    listing = reflection_pb2_grpc.ServerReflectionStub(client.channel).ServerReflectionInfo()
    await listing.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    await listing.read()
    async with asyncio.timeout(5):
        await server.stop(30)
    for stream in (watch, listing):
        assert await stream.code() is grpc.StatusCode.UNAVAILABLE


async def test_two_servers_do_not_share_a_port(directory):
    first_world, second_world = World(directory), World(directory)
    first_world.host = replace(first_world.host, listen="127.0.0.1:0")
    first = first_world.server()
    await first.start()
    second_world.host = replace(second_world.host, listen=f"127.0.0.1:{first.port}")
    with pytest.raises(RuntimeError):
        await second_world.server().start()
    await first.stop(0)


async def test_a_stopped_server_tells_its_supervisor(server):
    waiting = asyncio.create_task(server.wait())
    await server.stop(0)
    await asyncio.wait_for(waiting, 10)


async def test_a_server_whose_readiness_cannot_be_told_has_broken(world):
    def broken() -> Readiness:
        raise OSError("no answer")

    server = world.server(ready=broken)
    await server.start()
    with pytest.raises(OSError, match="no answer"):
        await asyncio.wait_for(server.wait(), 10)
    await server.stop(0)


async def test_who_waits_for_a_server_may_stop_waiting(server):
    waiting = asyncio.create_task(server.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait_for(server.stop(1), 10)
    await asyncio.wait_for(server.wait(), 10)
