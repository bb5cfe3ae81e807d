"""PostgreSQL, the broker and one tenant's database are taken away under load, and given back."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

from aiokafka import AIOKafkaProducer

from tests.e2e.books import ONBOARDED, WITHIN_S, books_once, read_books
from tests.e2e.load import counted, marks
from tests.e2e.world import until
from tlsy.contracts.events import INGEST_TOPIC
from tlsy.contracts.ingestion.events.v1.events_pb2 import ProducedEvents
from tlsy.tenancy.context import IsolationMode
from tlsy.testkit.installation import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from tests.e2e.load import Sender
    from tests.e2e.world import Tenant, World
    from tlsy.tenancy.database import ClusterAddress

_NUMBERS: Final = 210
_COUNTED: Final = counted(_NUMBERS)
_PAUSE_S: Final = 0.02


class Server(Protocol):
    """One that can be taken away."""

    async def kill(self) -> None:
        """It ends at once; what becomes of its data is its own affair."""

    async def start(self) -> None:
        """It is back, at the same address."""


async def postgres_is_killed_and_back(world: World, postgres: Server) -> None:
    tenants = await _two_tenants(world)
    async with _under_load(world, tenants) as (senders, gone):
        await _acknowledged(senders, _NUMBERS // 3)
        async with _killed(postgres, gone):
            await until(lambda: _refused(senders))
    await _reconcile(world, tenants)


async def the_broker_is_killed_and_back(world: World, broker: Server) -> None:
    """With what it held, or without."""
    tenants = await _two_tenants(world)
    async with _under_load(world, tenants) as (senders, gone):
        await _acknowledged(senders, _NUMBERS // 3)
        async with _killed(broker, gone):
            # Events are taken without it.
            await _acknowledged(senders, 2 * _NUMBERS // 3)
    assert not [reason for sender in senders for reason in sender.refused]
    await _reconcile(world, tenants)


async def one_database_is_away_and_the_others_go_on(world: World, administrator: ClusterAddress) -> None:
    away, *others = tenants = await _two_tenants(world)
    async with _under_load(world, tenants) as (senders, gone):
        of_away, *of_others = senders
        await _acknowledged(senders, _NUMBERS // 3)
        async with _unreachable(world, away, administrator):
            gone.set()
            await until(lambda: _refused([of_away]))
            stuck = len(of_away.acknowledged)
            await _produce(world, away, world.sender(away, "producer"))
            await until(lambda: _parked(world, away))
            await _acknowledged(of_others, _NUMBERS)
            assert len(of_away.acknowledged) == stuck
            await asyncio.gather(*(books_once(world.place(other), _NUMBERS) for other in others))
    assert not [reason for sender in of_others for reason in sender.refused]
    await _reconcile(world, tenants, {away: 2})


async def _two_tenants(world: World) -> Sequence[Tenant]:
    tenants = await asyncio.gather(
        world.tenant("bank", IsolationMode.DEDICATED), world.tenant("shop", IsolationMode.SHARED)
    )
    await asyncio.gather(*(world.publish_rules(tenant, _COUNTED) for tenant in tenants))
    return tenants


@asynccontextmanager
async def _under_load(
    world: World, tenants: Sequence[Tenant]
) -> AsyncIterator[tuple[Sequence[Sender], asyncio.Event]]:
    """A sender of each tenant, not done before the event; at the end all they had to send is acknowledged."""
    senders, gone = [world.sender(tenant, "agent") for tenant in tenants], asyncio.Event()
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        for sender in senders:
            group.create_task(sender.send(range(_NUMBERS), pause_s=_PAUSE_S, gone=gone))
        yield senders, gone
    assert all(sender.acknowledged == set(range(_NUMBERS)) for sender in senders)


@asynccontextmanager
async def _killed(server: Server, gone: asyncio.Event) -> AsyncIterator[None]:
    """It is back at the end however that comes: it is not this test's alone."""
    try:
        await server.kill()
        gone.set()
        yield
    finally:
        await server.start()


async def _acknowledged(senders: Sequence[Sender], count: int) -> None:
    async def reached() -> bool:
        return all(len(sender.acknowledged) >= count for sender in senders)

    await until(reached)


async def _refused(senders: Sequence[Sender]) -> bool:
    return all(sender.refused for sender in senders)


async def _parked(world: World, tenant: Tenant) -> bool:
    connection = await connect(world.databases.server, world.databases.control)
    try:
        sql = "select count(*) from ingestion.parked_record where tenant_id = $1"
        return bool(await connection.fetchval(sql, tenant.tenant_id))
    finally:
        await connection.close()


async def _produce(world: World, tenant: Tenant, sender: Sender) -> None:
    """All numbers of a source by the producers' topic."""
    producer = AIOKafkaProducer(bootstrap_servers=world.running.brokers[0])
    await producer.start()
    try:
        headers = [("authorization", f"Bearer {await world.agent(tenant.slug).token()}".encode())]
        value = ProducedEvents(events=sender.events(range(_NUMBERS))).SerializeToString()
        await producer.send_and_wait(INGEST_TOPIC, value, headers=headers)
    finally:
        await producer.stop()


@asynccontextmanager
async def _unreachable(world: World, tenant: Tenant, server: ClusterAddress) -> AsyncIterator[None]:
    """Nobody can connect to the tenant's database, and who was connected is not any more."""
    database = world.place(tenant).database
    administrator = await connect(server, "postgres")
    try:
        await administrator.execute(f"alter database {database} with allow_connections false")
        try:
            sql = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1"
            await administrator.fetch(sql, database)
            yield
        finally:
            await administrator.execute(f"alter database {database} with allow_connections true")
    finally:
        await administrator.close()


async def _reconcile(
    world: World, tenants: Sequence[Tenant], sources: Mapping[Tenant, int] | None = None
) -> None:
    for tenant in tenants:
        times = (sources or {}).get(tenant, 1)
        books = await books_once(world.place(tenant), times * _NUMBERS)
        books.reconcile(times * _NUMBERS)
        assert books.audited == ONBOARDED
        assert books.incidents["marked", "RESOLVED"] == times * marks(_NUMBERS)
        if times == 1:
            await world.counted_exactly(tenant, _COUNTED, range(_NUMBERS + 1, _NUMBERS + 2))
    assert [(await read_books(world.place(tenant))).parked for tenant in tenants] == [0, 0]
