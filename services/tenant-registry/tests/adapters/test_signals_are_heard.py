from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from tlsy.tenancy.database import Databases, PoolLimits
from tlsy.tenant_registry.adapters.postgres.signals import PostgresSignals
from tlsy.testkit.installation import CLUSTER

ROLE = "tlsy_tenant_registry"


@pytest.fixture
async def signals(installation, postgres_server, fake_clock, pooled):
    address = replace(postgres_server.address(ROLE), pooled=pooled)
    databases = Databases({CLUSTER: address}, PoolLimits(total=1), fake_clock)
    made = PostgresSignals(databases, installation.control, fake_clock)
    async with asyncio.timeout(60):
        await made.start()
        await made.due.wait()
        made.due.clear()
    yield made, databases
    stopping = asyncio.ensure_future(made.stop(10))
    while not stopping.done():
        fake_clock.advance(1)
        await asyncio.sleep(0)


@pytest.mark.parametrize("pooled", [False])
async def test_an_end_is_heard_at_once(signals, installation):
    made, _ = signals
    operation_id, administrator = uuid4(), await installation.connect(None, installation.control)
    with made.watch([operation_id]) as ended, made.watch([uuid4()]) as other:
        await administrator.execute("select pg_notify('tlsy_operation_ended', $1::text)", str(operation_id))
        async with asyncio.timeout(60):
            await ended.wait()
        assert not other.is_set()
    await administrator.execute("select pg_notify('tlsy_operation_due', '')")
    async with asyncio.timeout(60):
        await made.due.wait()


@pytest.mark.parametrize("pooled", [True])
async def test_through_a_pooler_everybody_looks_again_twice_a_second(signals, fake_clock):
    made, databases = signals
    assert not databases.open_connections()
    with made.watch([uuid4()]) as ended:
        for _ in range(3):
            ended.clear()
            made.due.clear()
            async with asyncio.timeout(60):
                while not fake_clock.sleepers:
                    await asyncio.sleep(0)
                assert not ended.is_set()
                fake_clock.advance(0.5)
                await ended.wait()
                await made.due.wait()
