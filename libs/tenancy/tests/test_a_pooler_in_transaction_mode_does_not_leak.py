"""Through PgBouncer with one server connection, which every client's transactions take turns on."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg
import pytest

from tlsy.runtime.clock import SystemClock
from tlsy.tenancy.context import IsolationMode
from tlsy.tenancy.database import Databases, PoolLimits
from tlsy.tenancy.unit_of_work import Tenancy
from tlsy.testkit.pooler import running_pooler

pytestmark = pytest.mark.real

SERVICE = "tlsy_web_shop"
CLIENTS = 8
TURNS = 25


@pytest.fixture
async def shop(tmp_path, postgres_server, installation):
    with running_pooler(postgres_server, tmp_path, [SERVICE], connections=1) as addresses:
        limits = PoolLimits(total=CLIENTS, per_database=CLIENTS)
        databases = Databases({"local": addresses[SERVICE]}, limits, SystemClock())
        yield Tenancy(
            package="web_shop",
            databases=databases,
            catalog=installation.catalog,
            control=installation.control,
        )
        await databases.close()


async def backends(installation):
    administrator = await installation.connect(None, installation.common)
    text = "select count(*) from pg_stat_activity where usename = $1 and datname = $2"
    return await administrator.fetchval(text, SERVICE, installation.common.database)


async def test_each_transaction_sees_its_own_tenant_alone(shop, installation):
    modes = [IsolationMode.SHARED, IsolationMode.SHARED, IsolationMode.SCHEMA, IsolationMode.SCHEMA]
    tenants = [await installation.provisioned_tenant(mode) for mode in modes]

    async def client(number):
        for turn in range(TURNS):
            tenant = tenants[(number + turn) % len(tenants)]
            async with shop.transaction(tenant.context, write=True) as tx:
                await tx.execute("update orders set note = $1", tenant.slug)
                await asyncio.sleep(0)
                rows = await tx.fetch("select tenant_id, note from orders")
            assert [(row["tenant_id"], row["note"]) for row in rows] == [(tenant.tenant_id, tenant.slug)]

    await asyncio.gather(*map(client, range(CLIENTS)))
    assert await backends(installation) == 1


@pytest.mark.parametrize("ends_in_an_error", [False, True])
async def test_the_next_client_finds_nothing_of_the_one_before(shop, installation, ends_in_an_error):
    tenant = await installation.provisioned_tenant()
    with suppress(asyncpg.DivisionByZeroError):
        async with shop.transaction(tenant.context, write=True) as tx:
            await tx.execute("update orders set note = 'x'")
            if ends_in_an_error:
                await tx.execute("select 1 / 0")
    async with shop._databases.acquire(installation.common) as connection:
        left = await connection.fetchrow(
            "select current_setting('app.current_tenant', true) tenant,"
            " current_setting('app.epoch', true) epoch, current_setting('search_path') path,"
            " (select count(*) from shared.orders) orders"
        )
    assert (left["tenant"] or "", left["epoch"] or "") == ("", "")
    assert (left["path"], left["orders"]) == ('""', 0)
