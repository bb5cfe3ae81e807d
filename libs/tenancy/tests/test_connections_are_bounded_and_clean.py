from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from tlsy.tenancy.context import IsolationMode, Placement
from tlsy.tenancy.database import Databases, PoolLimits
from tlsy.tenancy.errors import DatabaseBusy, PlacementUnavailable, UnknownCluster
from tlsy.tenancy.unit_of_work import Tenancy

ONE = PoolLimits(total=1, per_database=1)
ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
SLOW_COMMIT = """
create function public.at_commit() returns trigger language plpgsql security definer as
$$ begin perform {}; return null; end $$;
create constraint trigger at_commit after update on shared.orders deferrable initially deferred
for each row execute function public.at_commit()
"""
FEW = PoolLimits(total=4, per_database=2)


async def pid_of(connection):
    return await connection.fetchval("select pg_backend_pid()")


async def test_a_connection_is_used_again(installation):
    databases = installation.databases("tlsy_web_shop", ONE)
    pids = set()
    for _ in range(3):
        async with databases.acquire(installation.common) as connection:
            pids.add(await pid_of(connection))
    assert len(pids) == 1


async def test_no_connection_asks_for_the_types_of_arrays_that_statements_have(installation):
    sources = (path for part in ("libs", "services") for path in (ROOT / part).glob("*/src/**/*"))
    texts = (path.read_text() for path in sources if path.suffix in {".py", ".sql"})
    types = {found for text in texts for found in re.findall(r"::([a-z][a-z0-9 ]+\[\])", text)}
    assert {"bigint[]", "bytea[]", "double precision[]"} <= types
    values = {
        "boolean": True,
        "bytea": b"\x00",
        "date": NOW.date(),
        "timestamptz": NOW,
        "uuid": uuid4(),
    }
    asked = []
    async with installation.databases("tlsy_web_shop", ONE).acquire(installation.common) as connection:
        with connection.query_logger(lambda query: asked.append(query.query)):
            for type_ in sorted(types | {"boolean[]"}):
                value = values.get(type_[:-2], "a" if type_ == "text[]" else 7)
                assert await connection.fetchval(f"select $1::{type_}", [value, None]) == [value, None]
    assert asked
    assert {query for query in asked if not query.startswith("select $1::")} == set()


async def test_a_cancelled_statement_leaves_nothing_behind(installation):
    tenant = await installation.provisioned_tenant()
    shop = installation.tenancy("web_shop", ONE)
    entered = asyncio.Event()

    async def slow():
        async with shop.transaction(tenant.context, write=True) as tx:
            await tx.execute("delete from orders")
            entered.set()
            await tx.execute("select pg_sleep(30)")

    task = asyncio.create_task(slow())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with shop.transaction(tenant.context, write=False) as tx:
        assert await tx.fetchval("select count(*) from orders") == 1
    async with shop._databases.acquire(tenant.placement) as connection:
        assert not connection.is_in_transaction()
        assert await connection.fetchval("select current_setting('app.current_tenant', true)") in ("", None)


async def test_a_killed_connection_is_reported_and_replaced(installation):
    tenant = await installation.provisioned_tenant()
    shop = installation.tenancy("web_shop", ONE)
    owner = await installation.connect(None, installation.common)

    async def be_killed(tx):
        await tx.execute("delete from orders")
        pid = await tx.fetchval("select pg_backend_pid()")
        await owner.fetchval("select pg_terminate_backend($1, 5000)", pid)
        await tx.execute("select 1")

    with pytest.raises(PlacementUnavailable) as raised:
        await shop.run(tenant.tenant_id, be_killed, write=True)
    async with shop.transaction(tenant.context, write=False) as tx:
        assert await tx.fetchval("select count(*) from orders") == 1
    assert not raised.value.outcome_unknown


async def test_a_connection_killed_while_idle_is_not_lent(installation):
    databases = installation.databases("tlsy_web_shop", ONE)
    async with databases.acquire(installation.common) as connection:
        pid = await pid_of(connection)
    owner = await installation.connect(None, installation.common)
    await owner.fetchval("select pg_terminate_backend($1, 5000)", pid)
    async with asyncio.timeout(60):
        while not connection.is_closed():
            await asyncio.sleep(0)
    async with databases.acquire(installation.common) as connection:
        assert await pid_of(connection) != pid


async def test_a_connection_that_the_server_is_ending_is_reported_and_replaced(installation):
    databases = installation.databases("tlsy_web_shop", ONE)
    fields = b"SFATAL\0VFATAL\0C57P02\0Mterminating connection\0\0"
    with pytest.raises(PlacementUnavailable):  # noqa: PT012  the block is what is left by the error
        async with databases.acquire(installation.common) as connection:
            pid = await pid_of(connection)
            # The server's last word, when its end of the connection is still to come.
            connection._protocol.data_received(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
            await pid_of(connection)
    async with databases.acquire(installation.common) as connection:
        assert await pid_of(connection) != pid


async def test_the_connection_used_longest_ago_makes_room(installation):
    tenants = [await installation.provisioned_tenant(IsolationMode.DEDICATED) for _ in range(3)]
    databases = installation.databases("tlsy_web_shop", PoolLimits(total=2, per_database=2))
    for tenant in tenants:
        async with databases.acquire(tenant.placement) as connection:
            await pid_of(connection)
    assert set(databases.open_connections()) == {
        (tenant.placement.cluster, tenant.placement.database) for tenant in tenants[1:]
    }


async def test_who_waits_for_room_gets_it_when_another_database_is_done(installation):
    other = await installation.provisioned_tenant(IsolationMode.DEDICATED)
    databases = installation.databases("tlsy_web_shop", ONE)

    async def visit(placement):
        async with databases.acquire(placement) as connection:
            return await connection.fetchval("select current_database()")

    names = [installation.common, other.placement] * 4
    assert await asyncio.gather(*map(visit, names)) == [placement.database for placement in names]


async def test_waiting_for_a_connection_has_an_end(installation):
    databases = installation.databases("tlsy_web_shop", replace(ONE, acquire_timeout_s=0.2))
    async with databases.acquire(installation.common):
        with pytest.raises(PlacementUnavailable, match="no connection is free"):
            async with databases.acquire(installation.common):
                pass


async def test_a_database_that_is_away_fails_at_once_and_others_are_unaffected(
    installation, fake_clock, postgres_server
):
    away = Placement("local", "t_" + "0" * 32, "tenant")
    databases = Databases({"local": postgres_server.address("tlsy_web_shop")}, FEW, fake_clock)
    with pytest.raises(PlacementUnavailable, match="cannot connect"):
        async with databases.acquire(away):
            pass
    for _ in range(20):
        with pytest.raises(PlacementUnavailable, match="a moment ago"):
            async with databases.acquire(away):
                pass
    async with databases.acquire(installation.common) as connection:
        assert await connection.fetchval("select 1") == 1
    await databases.close()


async def test_who_waited_while_the_database_went_away_does_not_try_it_too(fake_clock, postgres_server):
    away = Placement("local", "t_" + "0" * 32, "tenant")
    limits = replace(FEW, per_database=1)
    databases = Databases({"local": postgres_server.address("tlsy_web_shop")}, limits, fake_clock)

    async def visit():
        async with databases.acquire(away):
            pass

    told = [str(error) for error in await asyncio.gather(visit(), visit(), return_exceptions=True)]
    assert ("cannot connect" in told[0], "a moment ago" in told[1]) == (True, True)
    await databases.close()


async def test_a_database_that_came_back_is_found_by_the_next_probe(
    installation, fake_clock, postgres_server
):
    placement = replace(installation.common, database=f"{installation.common.database}_late")
    databases = Databases({"local": postgres_server.address()}, FEW, fake_clock)
    with pytest.raises(PlacementUnavailable):
        async with databases.acquire(placement):
            pass
    owner = await installation.connect(None, installation.common)
    await owner.execute(f"create database {placement.database}")
    fake_clock.advance(FEW.retry_after_max_s)
    async with databases.acquire(placement) as connection:
        assert await connection.fetchval("select 1") == 1
    await databases.close()
    await owner.execute(f"drop database {placement.database}")


async def test_an_idle_connection_is_lent_while_no_further_one_can_be_made(
    installation, fake_clock, postgres_server
):
    databases = Databases({"local": postgres_server.address("tlsy_web_shop")}, FEW, fake_clock)
    owner = await installation.connect(None, installation.common)
    revoke = f"revoke connect on database {installation.common.database} from tlsy_web_shop"
    async with databases.acquire(installation.common) as connection:
        pid = await pid_of(connection)
        await owner.execute(revoke)
        for why in ("cannot connect", "a moment ago"):
            with pytest.raises(PlacementUnavailable, match=why):
                async with databases.acquire(installation.common):
                    pass
    async with databases.acquire(installation.common) as connection:
        assert await pid_of(connection) == pid
    await databases.close()


async def test_a_server_that_is_full_is_asked_again_at_once(installation, fake_clock, postgres_server):
    databases = Databases({"local": postgres_server.address("tlsy_web_shop")}, FEW, fake_clock)
    owner = await installation.connect(None, installation.common)
    limit = "alter database {} connection limit {}"
    name = installation.common.database
    await owner.execute(limit.format(name, 1))  # the owner's own
    with pytest.raises(PlacementUnavailable, match="no more connections"):
        async with databases.acquire(installation.common):
            pass
    await owner.execute(limit.format(name, -1))
    async with databases.acquire(installation.common) as connection:
        assert await connection.fetchval("select 1") == 1
    await databases.close()


async def test_an_unknown_cluster_is_a_final_error(installation):
    with pytest.raises(UnknownCluster):
        async with installation.databases("tlsy_web_shop").acquire(Placement("mars", "x", "y")):
            pass


async def test_a_statement_has_a_deadline(installation):
    tenant = await installation.provisioned_tenant()
    shop = installation.tenancy("web_shop", PoolLimits(statement_timeout_s=0.05))
    with pytest.raises(DatabaseBusy, match="QueryCanceledError"):
        async with shop.transaction(tenant.context, write=False) as tx:
            await tx.execute("select pg_sleep(30)")


async def test_a_lock_that_is_not_had_is_worth_another_try(installation):
    tenant = await installation.provisioned_tenant()
    owner = await installation.connect(None, installation.common)
    shop = installation.tenancy("web_shop", PoolLimits(lock_timeout_s=0.05))
    async with owner.transaction():
        await owner.execute("select pg_advisory_xact_lock(uuid_hash_extended($1, 0))", tenant.tenant_id)
        with pytest.raises(DatabaseBusy, match="LockNotAvailableError") as raised:
            await shop.run(tenant.tenant_id, lambda tx: tx.fetchval("select 1"), write=True)
    assert raised.value.reason == "DATABASE_BUSY"


async def test_of_two_that_exclude_each_other_one_is_worth_another_try(installation):
    tenant = await installation.provisioned_tenant()
    shop, meeting = installation.tenancy("web_shop"), asyncio.Barrier(2)
    second_order = "insert into orders values ($1, 1, '')"
    await shop.run(tenant.tenant_id, lambda tx: tx.execute(second_order, tenant.tenant_id), write=True)

    async def change(first, second):
        async with shop.transaction(tenant.context, write=True) as tx:
            await tx.execute("update orders set note = 'n' where order_id = $1", first)
            await meeting.wait()
            await tx.execute("update orders set note = 'n' where order_id = $1", second)

    results = await asyncio.gather(change(0, 1), change(1, 0), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["DatabaseBusy", "NoneType"]


@pytest.fixture
async def deaf_shop(installation, postgres_server, fake_clock):
    """Its server knows nothing of the limits, as behind a pooler: the client gives up after a second."""
    address = replace(postgres_server.address("tlsy_web_shop"), pooled=True)
    databases = Databases({"local": address}, PoolLimits(statement_timeout_s=0.0), fake_clock)
    yield Tenancy(
        package="web_shop", databases=databases, catalog=installation.catalog, control=installation.control
    )
    await databases.close()


async def test_a_statement_without_an_answer_is_worth_another_try(installation, deaf_shop):
    tenant = await installation.provisioned_tenant()
    with pytest.raises(DatabaseBusy, match="no answer"):
        await deaf_shop.run(tenant.tenant_id, lambda tx: tx.execute("select pg_sleep(30)"), write=False)
    assert await deaf_shop.run(tenant.tenant_id, lambda tx: tx.fetchval("select 1"), write=False) == 1


async def test_a_commit_without_an_answer_leaves_the_outcome_open(installation, deaf_shop):
    tenant = await installation.provisioned_tenant()
    owner = await installation.connect(None, installation.common)
    await owner.execute(SLOW_COMMIT.format("pg_sleep(30)"))
    with pytest.raises(PlacementUnavailable, match="no answer") as raised:
        await deaf_shop.run(
            tenant.tenant_id, lambda tx: tx.execute("update orders set note = 'changed'"), write=True
        )
    assert raised.value.outcome_unknown


async def test_a_caller_that_gives_up_itself_is_not_told_that_the_database_is_busy(installation):
    tenant = await installation.provisioned_tenant()
    shop = installation.tenancy("web_shop")
    with pytest.raises(TimeoutError):
        async with shop.transaction(tenant.context, write=False) as tx, asyncio.timeout(0.05):
            await tx.execute("select pg_sleep(30)")


async def test_after_close_nothing_is_lent(installation):
    databases = installation.databases("tlsy_web_shop")
    async with databases.acquire(installation.common) as connection:
        await databases.close()
    assert connection.is_closed()
    with pytest.raises(PlacementUnavailable):
        async with databases.acquire(installation.common):
            pass


async def test_behind_a_pooler_nothing_is_prepared_or_set(installation, postgres_server, fake_clock):
    address = replace(postgres_server.address("tlsy_web_shop"), pooled=True)
    databases = Databases({"local": address}, PoolLimits(statement_timeout_s=1), fake_clock)
    async with databases.acquire(installation.common) as connection:
        await connection.fetchval("select $1::int", 1)
        assert await connection.fetchval("select count(*) from pg_prepared_statements where name <> ''") == 0
        assert await connection.fetchval("show statement_timeout") == "10s"  # the role's own
    await databases.close()


async def test_a_connection_lost_during_commit_leaves_the_outcome_open(installation):
    tenant = await installation.provisioned_tenant()
    owner = await installation.connect(None, installation.common)
    await owner.execute(SLOW_COMMIT.format("pg_terminate_backend(pg_backend_pid()); perform pg_sleep(5)"))

    async def change(tx):
        await tx.execute("update orders set note = 'changed'")

    with pytest.raises(PlacementUnavailable) as raised:
        await installation.tenancy("web_shop").run(tenant.tenant_id, change, write=True)
    assert raised.value.outcome_unknown
