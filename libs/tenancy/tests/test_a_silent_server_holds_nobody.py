"""A server that says nothing any more, over connections that stand, costs whoever asks it a limited time."""

from __future__ import annotations

import asyncio

import pytest

from tlsy.runtime.clock import SystemClock
from tlsy.tenancy.database import Databases, PoolLimits
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
