"""What only an operator can mend is no fault of the statement that meets it."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from tlsy.tenancy.context import PLATFORM, Placement
from tlsy.tenancy.database import Databases, PoolLimits
from tlsy.tenancy.errors import DatabaseBusy, PlacementUnavailable
from tlsy.tenancy.local_postgres import THROW_AWAY, LocalPostgres
from tlsy.tenancy.unit_of_work import Tenancy
from tlsy.testkit.postgres import running_postgres

ONE = PoolLimits(total=1, per_database=1)
PID = "select pg_backend_pid()"
RAISE = "do $$ begin raise 'fails' using errcode = '{}'; end $$"


@pytest.mark.parametrize("sqlstate", ["53000", "53100", "53200", "53300", "58030", "58P01", "XX001", "XX002"])
@pytest.mark.parametrize("write", [True, False])
async def test_what_no_statement_is_to_blame_for_is_the_databases_failure(
    installation, log_lines, sqlstate, write
):
    tenant = await installation.provisioned_tenant()
    shop = installation.tenancy("web_shop", ONE)
    with pytest.raises(PlacementUnavailable, match=sqlstate) as raised:
        await shop.run(tenant.tenant_id, lambda tx: tx.execute(RAISE.format(sqlstate)), write=write)
    assert not raised.value.outcome_unknown
    assert [line["sqlstate"] for line in log_lines.of("database fails")] == [sqlstate]
    assert await shop.run(tenant.tenant_id, lambda tx: tx.fetchval("select 1"), write=write) == 1


async def test_what_postgresql_did_not_expect_is_worth_another_try(installation):
    tenant = await installation.provisioned_tenant()
    with pytest.raises(DatabaseBusy, match="InternalServerError"):
        await installation.tenancy("web_shop").run(
            tenant.tenant_id, lambda tx: tx.execute(RAISE.format("XX000")), write=True
        )


async def test_a_row_without_a_partition_waits_for_the_next_upkeep_and_one_that_breaks_a_rule_does_not(
    installation,
):
    tenant = await installation.provisioned_tenant()
    shop = installation.tenancy("web_shop")
    unmade = "insert into readings values ($1, now() - interval '900 days', 1)"
    with pytest.raises(PlacementUnavailable, match="upkeep is behind"):
        await shop.run(tenant.tenant_id, lambda tx: tx.execute(unmade, tx.tenant_id), write=True)
    broken = RAISE.replace("errcode = '{}'", "errcode = '23514', constraint = 'positive'")
    with pytest.raises(asyncpg.CheckViolationError):
        await shop.run(tenant.tenant_id, lambda tx: tx.execute(broken), write=True)


async def test_a_server_that_became_read_only_is_left(installation):
    tenant = await installation.provisioned_tenant()
    shop, pids = installation.tenancy("web_shop", ONE), []

    async def write(tx):
        pids.append(await tx.fetchval(PID))
        if len(pids) == 1:
            await tx.execute("set transaction read only")
        await tx.execute("update orders set note = 'n'")

    with pytest.raises(PlacementUnavailable, match="read-only"):
        await shop.run(tenant.tenant_id, write, write=True)
    await shop.run(tenant.tenant_id, write, write=True)
    assert len(set(pids)) == 2


@pytest.fixture
async def standby(fake_clock):
    """The databases of a server that became a standby, with one connection at most."""
    with running_postgres() as server:
        folder = Path(server.host)
        (folder / "data" / "standby.signal").touch()
        LocalPostgres(folder / "data", folder, THROW_AWAY).start()
        databases = Databases({"local": server.address()}, ONE, fake_clock)
        yield databases
        await databases.close()


async def test_a_standby_is_a_database_that_is_away_for_who_writes(installation, standby):
    control = Placement("local", "postgres", "")
    shop = Tenancy(package="web_shop", databases=standby, catalog=installation.catalog, control=control)
    async with standby.acquire(control) as connection:
        before = await connection.fetchval(PID)
    with pytest.raises(PlacementUnavailable, match="during recovery"):
        async with shop.control(PLATFORM, write=True):
            pass
    async with standby.acquire(control) as connection:
        assert await connection.fetchval(PID) != before
