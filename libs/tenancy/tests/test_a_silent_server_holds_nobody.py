"""A server that says nothing any more, over connections that stand, costs whoever asks it a limited time."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from tlsy.runtime.clock import SystemClock
from tlsy.tenancy.database import Databases, PoolLimits
from tlsy.tenancy.errors import PlacementUnavailable
from tlsy.tenancy.lease import hold, take_lease
from tlsy.tenancy.partitions import maintain
from tlsy.testkit.wire import counted

#: The client gives up after a second, and the server never.
LIMITS = PoolLimits(
    total=1, per_database=1, statement_timeout_s=0.0, connect_timeout_s=20, acquire_timeout_s=20
)
DEADLINE_S = 8.0
#: The client gives up after four seconds.
SLOW = PoolLimits(total=1, per_database=1, statement_timeout_s=3.0)
#: The client gives up long after its test does.
ENDLESS = PoolLimits(total=8, connect_timeout_s=20, acquire_timeout_s=20, statement_timeout_s=300)


@pytest.fixture
def wire(postgres_server):
    with counted(postgres_server.address("tlsy_migrator")) as wire:
        yield wire


@pytest.fixture
async def databases(wire):
    made = Databases({"local": wire.address}, LIMITS, SystemClock())
    yield made
    await made.close()


async def ask(connection, _lease, silence):
    silence()
    await connection.fetchval("select 1")


async def begin(connection, lease, silence):
    silence()
    async with hold(connection, lease):
        pass


async def end(connection, lease, silence):
    async with hold(connection, lease):
        silence()


async def ask_within(connection, lease, silence):
    async with hold(connection, lease):
        await ask(connection, lease, silence)


async def keep_up(connection, _lease, silence):
    silence()
    await maintain(connection, SystemClock().now().date())


@pytest.mark.parametrize("use", [ask, begin, end, ask_within, keep_up])
async def test_whoever_uses_a_connection_to_it_is_told(installation, wire, databases, use):
    async with databases.acquire(installation.control) as connection:
        lease = await take_lease(connection, "worker", "me", 60)
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(TimeoutError):
            async with databases.acquire(installation.control) as connection:
                await use(connection, lease, wire.speaks.clear)
        assert connection.is_closed()
    wire.speaks.set()
    async with databases.acquire(installation.control) as another:
        assert not another.is_in_transaction()
        assert await another.fetchval("select 1") == 1


@pytest.mark.parametrize("use", [begin, end, ask_within])
async def test_whoever_has_waited_for_it_once_does_not_ask_it_again(installation, wire, use):
    databases = Databases({"local": wire.address}, SLOW, SystemClock())
    async with databases.acquire(installation.control) as connection:
        lease = await take_lease(connection, "worker", "me", 60)
        async with asyncio.timeout(1.5 * SLOW.command_timeout_s):
            with pytest.raises(TimeoutError):
                await use(connection, lease, wire.speaks.clear)
        assert connection.is_closed()
    await databases.close()


@pytest.fixture
async def beside(wire, postgres_server):
    """Makes pools in which cluster "silent" may fall silent, and "local", the same server, never does."""
    made = []

    def make(limits):
        addresses = {"silent": wire.address, "local": postgres_server.address("tlsy_migrator")}
        made.append(Databases(addresses, limits, SystemClock()))
        return made[-1]

    yield make
    wire.speaks.set()
    for databases in made:
        await databases.close()


async def visit(databases, placement):
    async with databases.acquire(placement) as connection:
        return await connection.fetchval("select 1")


async def test_whoever_asks_another_database_is_served_meanwhile(installation, wire, beside):
    databases = beside(replace(ENDLESS, per_database=4, acquire_timeout_s=5))
    silent = replace(installation.common, cluster="silent")
    async with AsyncExitStack() as held:
        taken = [await held.enter_async_context(databases.acquire(silent)) for _ in range(4)]
        wire.speaks.clear()
        asking = [asyncio.create_task(connection.fetchval("select 1")) for connection in taken]
        queue = [asyncio.create_task(visit(databases, silent)) for _ in range(50)]
        async with asyncio.timeout(DEADLINE_S):
            others = [installation.control, installation.common] * 20
            assert await asyncio.gather(*(visit(databases, other) for other in others)) == [1] * len(others)
        assert not any(task.done() for task in asking)
        assert databases.open_connections()["silent", silent.database] == len(taken)
        told = await asyncio.gather(*queue, return_exceptions=True)
        assert {type(error) for error in told} == {PlacementUnavailable}
        assert all("no connection is free" in str(error) for error in told)
        wire.speaks.set()
        assert await asyncio.gather(*asking) == [1] * len(taken)


async def test_its_idle_connections_make_room_without_its_word(installation, wire, beside):
    databases = beside(replace(ENDLESS, per_database=8))
    async with AsyncExitStack() as held:
        for _ in range(8):
            await held.enter_async_context(databases.acquire(replace(installation.common, cluster="silent")))
    wire.speaks.clear()
    async with asyncio.timeout(0.75 * 8), AsyncExitStack() as held:
        for _ in range(8):
            await held.enter_async_context(databases.acquire(installation.control))
