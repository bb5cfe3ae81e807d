"""PostgreSQL, the broker and one tenant's database are taken away under load, and given back."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest
from aiokafka import AIOKafkaProducer

from tlsy.contracts.events import INGEST_TOPIC
from tlsy.contracts.ingestion.events.v1.events_pb2 import ProducedEvents
from tlsy.tenancy import migrations
from tlsy.tenancy.context import IsolationMode
from tlsy.testkit.installation import Templates, connect

from .books import ONBOARDED, books_once, read_books
from .load import counted, marks
from .servers import killable_postgres, wipeable_broker
from .suites import suite_in_process
from .world import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from tlsy.testkit.installation import Installation

    from .load import Sender
    from .servers import KillablePostgres
    from .world import Tenant, World

_NUMBERS: Final = 210
_COUNTED: Final = counted(_NUMBERS)
_PAUSE_S: Final = 0.02


@pytest.fixture(scope="module")
def postgres() -> Iterator[KillablePostgres]:
    with killable_postgres() as running:
        yield running


@pytest.fixture(scope="module")
def templates(postgres: KillablePostgres) -> Templates:
    made = Templates(postgres.server, migrations.installed())
    asyncio.run(made.build())
    return made


@pytest.fixture
async def installation(templates: Templates) -> AsyncIterator[Installation]:
    async with templates.installation() as fresh:
        yield fresh


async def test_postgres_is_killed_and_back(world: World, postgres: KillablePostgres) -> None:
    tenants = await _two_tenants(world)
    async with _under_load(world, tenants) as senders:
        await _acknowledged(senders, _NUMBERS // 3)
        postgres.kill()
        await until(lambda: _refused(senders))
        await postgres.start()
    await _reconcile(world, tenants)


async def test_the_broker_is_wiped_and_back(installation: Installation) -> None:
    async with wipeable_broker() as broker, suite_in_process(installation, broker.address) as (_, world):
        tenants = await _two_tenants(world)
        async with _under_load(world, tenants) as senders:
            await _acknowledged(senders, _NUMBERS // 3)
            await broker.stop()
            # Events are taken without it.
            await _acknowledged(senders, 2 * _NUMBERS // 3)
            await broker.start()
        assert not any(sender.refused for sender in senders)
        await _reconcile(world, tenants)


async def test_one_database_is_away_and_the_others_go_on(world: World, installation: Installation) -> None:
    away, *others = tenants = await _two_tenants(world)
    async with _under_load(world, tenants) as senders:
        of_away, *of_others = senders
        await _acknowledged(senders, _NUMBERS // 3)
        async with _unreachable(world, away, installation):
            await until(lambda: _refused([of_away]))
            stuck = len(of_away.acknowledged)
            await _produce(world, away, world.sender(away, "producer"))
            await until(lambda: _parked(world, away))
            await _acknowledged(of_others, _NUMBERS)
            assert len(of_away.acknowledged) == stuck
            await asyncio.gather(*(books_once(world.place(other), _NUMBERS) for other in others))
    assert not any(sender.refused for sender in of_others)
    await _reconcile(world, tenants, {away.slug: 2})


async def _two_tenants(world: World) -> Sequence[Tenant]:
    tenants = await asyncio.gather(
        world.tenant("bank", IsolationMode.DEDICATED), world.tenant("shop", IsolationMode.SHARED)
    )
    await asyncio.gather(*(world.publish_rules(tenant, _COUNTED) for tenant in tenants))
    return tenants


@asynccontextmanager
async def _under_load(world: World, tenants: Sequence[Tenant]) -> AsyncIterator[Sequence[Sender]]:
    """A sender of each tenant; at the end all that they had to send is acknowledged."""
    senders = [world.sender(tenant, "agent") for tenant in tenants]
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for sender in senders:
            group.create_task(sender.send(range(_NUMBERS), pause_s=_PAUSE_S))
        yield senders
    assert all(sender.acknowledged == set(range(_NUMBERS)) for sender in senders)


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
async def _unreachable(world: World, tenant: Tenant, installation: Installation) -> AsyncIterator[None]:
    """Nobody can connect to the tenant's database, and who was connected is not any more."""
    database = world.place(tenant).database
    administrator = await connect(installation.server.address(), "postgres")
    try:
        await administrator.execute(f"alter database {database} with allow_connections false")
        sql = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1"
        await administrator.fetch(sql, database)
        yield
        await administrator.execute(f"alter database {database} with allow_connections true")
    finally:
        await administrator.close()


async def _reconcile(world: World, tenants: Sequence[Tenant], sources: dict[str, int] | None = None) -> None:
    for tenant in tenants:
        times = (sources or {}).get(tenant.slug, 1)
        books = await books_once(world.place(tenant), times * _NUMBERS)
        books.reconcile(times * _NUMBERS)
        assert books.audited == ONBOARDED
        assert books.incidents["marked", "RESOLVED"] == times * marks(_NUMBERS)
        if times == 1:
            await world.counted_exactly(tenant, _COUNTED, range(_NUMBERS + 1, _NUMBERS + 2))
    assert [(await read_books(world.place(tenant))).parked for tenant in tenants] == [0, 0]
