"""A relay gives up the connection to a server that takes no writes any more, or says nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from libs.eventlog.tests.world import CLOCK
from tlsy.eventlog.outboxes import Outboxes
from tlsy.tenancy.context import Placement
from tlsy.tenancy.database import Databases, PoolLimits
from tlsy.tenancy.errors import PlacementUnavailable
from tlsy.tenancy.local_postgres import THROW_AWAY, LocalPostgres
from tlsy.testkit.postgres import running_postgres
from tlsy.testkit.wire import counted

ONE = PoolLimits(total=1, per_database=1)
#: The client gives up after four seconds, and the server never.
SLOW = PoolLimits(total=1, per_database=1, statement_timeout_s=3.0)
PID = "select pg_backend_pid()"


async def pid(databases, placement):
    async with databases.acquire(placement) as connection:
        return await connection.fetchval(PID)


async def write_read_only(outboxes, placement):
    async with outboxes.lead(placement) as outbox:
        await outbox._connection.execute("set transaction read only")
        await outbox.store_reconciled_log(1)


async def test_a_server_that_became_read_only_is_left(world, installation):
    databases, control = installation.databases("tlsy_relay", ONE), installation.control
    before = await pid(databases, control)
    with pytest.raises(PlacementUnavailable, match="read-only"):
        await write_read_only(world.outboxes(databases), control)
    assert await pid(databases, control) != before


async def test_nothing_is_led_on_a_standby():
    """Else what waits there would be published once more at each try, for it cannot be marked."""
    control = Placement("local", "postgres", "")
    with running_postgres() as server:
        folder = Path(server.host)
        (folder / "data" / "standby.signal").touch()
        LocalPostgres(folder / "data", folder, THROW_AWAY).start()
        databases = Databases({"local": server.address()}, ONE, CLOCK)
        before = await pid(databases, control)
        with pytest.raises(PlacementUnavailable, match="during recovery"):
            async with Outboxes("ingestion", databases, control, listening=databases).lead(control):
                pass
        assert await pid(databases, control) != before
        await databases.close()


async def ask_the_silent(outboxes, placement, wire):
    async with outboxes.lead(placement) as outbox:
        wire.speaks.clear()
        await outbox.backlog()


async def test_a_server_that_says_nothing_is_waited_for_once(installation):
    control = installation.control
    with counted(installation.server.address("tlsy_relay")) as wire:
        databases = Databases({control.cluster: wire.address}, SLOW, CLOCK)
        outboxes = Outboxes("ingestion", databases, control, listening=databases)
        async with asyncio.timeout(1.5 * SLOW.command_timeout_s):
            with pytest.raises(PlacementUnavailable):
                await ask_the_silent(outboxes, control, wire)
        wire.speaks.set()
        await databases.close()
