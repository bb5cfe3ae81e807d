from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from libs.rpc.tests.world import ACME, OTHER, bearer, entry, refused
from tlsy.contracts.identity.v1 import identity_pb2 as identity
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as ingestion
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as registry
from tlsy.rpc.errors import DeadlineExceeded, Permanent, ResourceExhausted, ServiceError, TooLarge
from tlsy.rpc.limits import RequestRates
from tlsy.rpc.server import ServerLimits
from tlsy.runtime.ids import PLATFORM_SLUG, PLATFORM_TENANT_ID
from tlsy.testkit.clock import FakeClock

REQUEST = identity.GetUserRequest(name="tenants/acme/users/u")
TAIL = ingestion.TailEventsRequest(parent="tenants/acme")


@pytest.fixture
def deadline_s() -> float:
    return 0.3


@pytest.fixture
def max_stream_s() -> float:
    return 20.0


@pytest.fixture
def server_limits(deadline_s, max_stream_s) -> ServerLimits:
    return ServerLimits(
        default_deadline_s=deadline_s,
        max_deadline_s=deadline_s + 0.1,
        max_stream_s=max_stream_s,
        max_in_flight=3,
        max_in_flight_per_tenant=2,
        max_in_flight_public=2,
        max_streams_per_tenant=1,
        max_open_streams=2,
    )


async def forever() -> None:
    await asyncio.Event().wait()


def test_a_tenant_over_its_rate_is_told_when_to_come_back():
    clock = FakeClock()
    rates = RequestRates(clock, default_per_s=100)
    tenant = entry(ACME, "acme", entitlements={"requests_per_s": 2})
    for _ in range(4):
        rates.take(tenant)
    with pytest.raises(ResourceExhausted) as raised:
        rates.take(tenant)
    assert raised.value.reason == "RATE_LIMITED"
    clock.advance(raised.value.retry_after_s or 0.0)
    rates.take(tenant)


def test_a_tenants_rate_is_its_own():
    rates = RequestRates(FakeClock(), default_per_s=1)
    for _ in range(2):
        rates.take(entry(ACME, "acme"))
    rates.take(entry(OTHER, "other"))


def test_a_rate_of_zero_is_unlimited():
    rates = RequestRates(FakeClock(), default_per_s=1)
    for _ in range(100):
        rates.take(entry(ACME, "acme", entitlements={"requests_per_s": 0}))


async def test_the_rate_is_enforced_on_calls(world, client):
    world.catalog.put(entry(ACME, "acme", entitlements={"requests_per_s": 1}))
    metadata = bearer(world.token("client-admin"))

    async def call_on_and_on():
        while True:
            await client.identity.GetUser(REQUEST, metadata=metadata)

    error = await refused(call_on_and_on())
    assert len(world.identity.calls) >= 2
    assert error.reason == "RATE_LIMITED"
    assert (error.retry_after_s or 0.0) > 0


async def test_a_call_without_a_deadline_gets_one(world, client):
    world.identity.act = forever
    error = await refused(client.identity.GetUser(REQUEST, metadata=bearer(world.token("client-admin"))))
    assert isinstance(error, DeadlineExceeded)


async def test_a_deadline_beyond_the_limit_is_cut(world, client):
    world.identity.act = forever
    metadata = bearer(world.token("client-admin"))
    error = await refused(client.identity.GetUser(REQUEST, metadata=metadata, timeout=60))
    assert isinstance(error, DeadlineExceeded)


async def test_the_handler_knows_its_deadline(world, client):
    before = world.clock.monotonic()
    await client.identity.GetUser(REQUEST, metadata=bearer(world.token("client-admin")), timeout=5)
    assert before < world.identity.calls[0].deadline <= world.clock.monotonic() + 5


def calls(client, request, metadata, count):
    return [asyncio.ensure_future(client.identity.GetUser(request, metadata=metadata)) for _ in range(count)]


async def until(true):
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


async def reached(world, count):
    """Returns once so many calls are being answered."""
    await until(lambda: len(world.identity.calls) >= count)


@pytest.mark.parametrize("deadline_s", [20.0])
async def test_one_call_too_many_at_once_is_refused(world, client):
    answering = asyncio.Event()
    world.identity.act = answering.wait
    first = calls(client, REQUEST, bearer(world.token("client-admin")), 2)
    await reached(world, 2)
    others = bearer(world.token("client-admin", tenant_id=OTHER, slug="other"))
    names = identity.GetUserRequest(name="tenants/other/users/u")
    then = calls(client, names, others, 1)
    await reached(world, 3)
    assert (await refused(client.identity.GetUser(names, metadata=others))).reason == "SERVER_BUSY"
    answering.set()
    await asyncio.gather(*first, *then)
    assert (await client.identity.GetUser(names, metadata=others)).name


@pytest.mark.parametrize("deadline_s", [20.0])
async def test_a_tenant_leaves_room_for_others(world, client):
    answering = asyncio.Event()
    world.identity.act = answering.wait
    metadata = bearer(world.token("client-admin"))
    held = calls(client, REQUEST, metadata, 2)
    await reached(world, 2)
    assert (await refused(client.identity.GetUser(REQUEST, metadata=metadata))).reason == "TENANT_BUSY"
    answering.set()
    await asyncio.gather(*held)
    assert (await client.identity.GetUser(REQUEST, metadata=metadata)).name


@pytest.mark.parametrize("deadline_s", [20.0])
async def test_calls_without_a_token_leave_room_for_those_with_one(world, client):
    answering = asyncio.Event()
    world.identity.act = answering.wait
    anonymous = identity.LogInRequest(tenant="tenants/acme", email="a@b.org", password="x")
    asked = [asyncio.ensure_future(client.identity.LogIn(anonymous)) for _ in range(3)]
    await until(lambda: len(world.identity.calls) + sum(each.done() for each in asked) == 3)
    (known,) = calls(client, REQUEST, bearer(world.token("client-admin")), 1)
    await until(lambda: known.done() or world.identity.calls[-1].claims is not None)
    answering.set()
    assert (await known).name
    (over,) = (
        each
        for each in await asyncio.gather(*asked, return_exceptions=True)
        if isinstance(each, grpc.aio.AioRpcError)
    )
    assert ServiceError.from_rpc_error(over).reason == "PUBLIC_BUSY"
    await client.identity.LogIn(anonymous)


async def test_a_service_has_no_share_and_no_rate(world, client):
    world.catalog.put(entry(PLATFORM_TENANT_ID, PLATFORM_SLUG, entitlements={"requests_per_s": 1}))
    metadata = bearer(world.service_tokens().token_for("identity"))
    request = identity.ListRevocationsRequest()
    for _ in range(5):
        await client.identity.ListRevocations(request, metadata=metadata)
    world.identity.act = forever
    calls = [refused(client.identity.ListRevocations(request, metadata=metadata)) for _ in range(3)]
    assert {error.reason for error in await asyncio.gather(*calls)} == {"DEADLINE_EXCEEDED"}


async def test_a_bad_token_does_not_leave_a_call_counted(world, client):
    for _ in range(5):
        await refused(client.identity.GetUser(REQUEST, metadata=bearer("x")))
    assert (await client.identity.GetUser(REQUEST, metadata=bearer(world.token("client-admin")))).name


async def test_one_stream_too_many_of_a_tenant_is_refused(world, client):
    world.ingestion.act = forever
    metadata = bearer(world.token("viewer"))
    first = client.ingestion.TailEvents(TAIL, metadata=metadata)
    assert (await first.read()).missed == 1
    error = await refused(client.ingestion.TailEvents(TAIL, metadata=metadata).read())
    assert error.reason == "TOO_MANY_STREAMS"
    first.cancel()


async def test_a_service_has_no_share_of_streams(world, client):
    """All replicas of all services read the catalogue at once when a tenant is moved."""
    world.registry.act = forever
    metadata = bearer(world.service_tokens().token_for("identity"))
    request = registry.SnapshotCatalogRequest()
    streams = [client.registry.SnapshotCatalog(request, metadata=metadata) for _ in range(3)]
    assert [(await stream.read()).resume_token for stream in streams] == ["1"] * 3
    for stream in streams:
        stream.cancel()


async def test_a_stream_that_was_left_is_not_counted_any_more(world, client):
    metadata = bearer(world.token("viewer"))
    for _ in range(3):
        stream = client.ingestion.TailEvents(TAIL, metadata=metadata)
        assert [answer.missed async for answer in stream] == [1, 2]


@pytest.mark.parametrize("max_stream_s", [2.0])
async def test_a_stream_ends_at_its_limit(world, client):
    world.ingestion.act = forever
    stream = client.ingestion.TailEvents(TAIL, metadata=bearer(world.token("viewer")))
    assert (await stream.read()).missed == 1
    assert isinstance(await refused(stream.read()), DeadlineExceeded)


@pytest.mark.parametrize("max_stream_s", [0.0])
async def test_a_stream_that_ends_while_it_begins_tells_so(world, client):
    metadata = bearer(world.token("viewer"))
    for _ in range(10):
        stream = client.ingestion.TailEvents(TAIL, metadata=metadata)
        async with asyncio.timeout(60):
            assert isinstance(await refused(stream.read()), DeadlineExceeded)


async def test_a_request_over_the_size_limit_is_refused(world, client):
    batch = ingestion.IngestEventsRequest(
        parent="tenants/acme", events=[ingestion.Event(data=b"x" * 10_000_000)]
    )
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await client.ingestion.IngestEvents(batch, metadata=bearer(world.token("agent")))
    told = ServiceError.from_rpc_error(raised.value)
    assert (type(told), told.code) == (TooLarge, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert isinstance(told, Permanent)


async def test_streams_that_ask_for_no_token_are_so_many(client):
    health = health_pb2_grpc.HealthStub(client.channel)
    request = health_pb2.HealthCheckRequest()
    listing = reflection_pb2_grpc.ServerReflectionStub(client.channel).ServerReflectionInfo()
    await listing.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    await listing.read()
    watch = health.Watch(request)
    await watch.read()
    error = await refused(health.Watch(request).read())
    assert (type(error), error.reason) == (ResourceExhausted, "TOO_MANY_STREAMS")
    assert (await health.Check(request)).status
    watch.cancel()
    (await let_in(health)).cancel()
    listing.cancel()


async def let_in(health):
    """A watch, as soon as there is room for it."""
    async with asyncio.timeout(60):
        while True:
            watch = health.Watch(health_pb2.HealthCheckRequest())
            try:
                await watch.read()
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.01)
            else:
                return watch


@pytest.mark.parametrize("max_stream_s", [0.05])
async def test_nobody_watches_for_good(client):
    watch = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest())

    async def read_on() -> None:
        async for _ in watch:
            pass

    async with asyncio.timeout(60):
        assert isinstance(await refused(read_on()), DeadlineExceeded)
