"""Through PgBouncer with one server connection, which every client's transactions take turns on."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from tlsy.runtime.clock import SystemClock
from tlsy.tenancy.context import IsolationMode
from tlsy.tenancy.database import ClusterAddress, Databases, PoolLimits
from tlsy.tenancy.unit_of_work import Tenancy

pytestmark = pytest.mark.real

SERVICE = "tlsy_web_shop"
CLIENTS = 8
TURNS = 25


@pytest.fixture
def pooled(tmp_path, postgres_server):
    """The address of a pooler in front of the server, as the service's role."""
    program = shutil.which("pgbouncer")
    assert program, "'pgbouncer' is not on the PATH: install it (Debian: pgbouncer)"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "users").write_text(f'"{SERVICE}" "{postgres_server.password}"\n')
    (tmp_path / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={postgres_server.host} port={postgres_server.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = plain\nauth_file = {tmp_path}/users\npool_mode = transaction\n"
        f"default_pool_size = 1\nmin_pool_size = 0\nreserve_pool_size = 0\n"
    )
    command = [program, "--quiet", str(tmp_path / "pgbouncer.ini")]
    if os.geteuid() == 0:
        # It refuses to be root; whoever runs the server can reach its socket.
        for path in (tmp_path, *tmp_path.parents[:3], *tmp_path.iterdir()):
            path.chmod(0o755)
        command += ["--user", Path(postgres_server.host).owner()]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield ClusterAddress(
        host="127.0.0.1", port=port, user=SERVICE, password=postgres_server.password, pooled=True
    )
    process.terminate()
    process.wait(10)


@pytest.fixture
async def shop(pooled, installation):
    databases = Databases({"local": pooled}, PoolLimits(total=CLIENTS, per_database=CLIENTS), SystemClock())
    async with asyncio.timeout(10):
        while not await answers(databases, installation.common):
            await asyncio.sleep(0.02)
    yield Tenancy(
        package="web_shop",
        databases=databases,
        catalog=installation.catalog,
        control=installation.control,
    )
    await databases.close()


async def answers(databases, placement):
    try:
        async with databases.acquire(placement) as connection:
            return await connection.fetchval("select true")
    except Exception:  # noqa: BLE001  it is still starting
        return False


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
