"""Probes of one guard each, and mutants that take that guard away: a probe holds, and its mutant kills it.

Layers mask each other, so each probe goes at its own layer: as the service's role, as the owner, or in SQL
beside the unit of work.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import pytest

from tlsy.tenancy.context import IsolationMode
from tlsy.tenancy.database import PoolLimits
from tlsy.tenancy.errors import NotWritable, PlacementUnavailable, StaleEpoch
from tlsy.tenancy.provisioning import DesiredState
from tlsy.testkit.mutants import alter_function

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tlsy.tenancy.catalog import TenantEntry
    from tlsy.tenancy.database import Connection, Databases
    from tlsy.tenancy.unit_of_work import Tenancy
    from tlsy.testkit.installation import Installation

ONE = PoolLimits(total=1, per_database=1)


@dataclass
class World:
    """Two SHARED tenants with an order and a price each, one pooled connection of the service to a database.

    `owner` is the administrator in the common database, `control` in the control database.
    """

    installation: Installation
    ours: TenantEntry
    theirs: TenantEntry
    databases: Databases
    shop: Tenancy
    owner: Connection
    control: Connection

    async def entered(self, entry: TenantEntry, statement: str, *args: object) -> object:
        async with self.shop.transaction(entry.context, write=True) as tx:
            return await tx.fetchval(statement, *args)


@pytest.fixture
async def world(installation):
    ours, theirs = [await installation.provisioned_tenant() for _ in range(2)]
    shop = installation.tenancy("web_shop", ONE)
    control = await installation.connect(None, installation.control)
    for tenant in (ours, theirs):
        await control.execute("insert into web_shop.prices values ($1, 'pen', 100)", tenant.tenant_id)
    return World(
        installation,
        ours,
        theirs,
        databases=shop._databases,
        shop=shop,
        owner=await installation.connect(None, installation.common),
        control=control,
    )


async def rows_of_others_are_unseen(world):
    seen = await world.entered(
        world.ours, "select count(*) from orders where tenant_id = $1", world.theirs.tenant_id
    )
    assert seen == 0


async def rows_for_others_are_refused(world):
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await world.entered(world.ours, "insert into orders values ($1, 7, '')", world.theirs.tenant_id)


async def the_owner_sees_nothing(world):
    async with world.owner.transaction():
        await world.owner.execute("set local role tlsy_owner")
        assert await world.owner.fetchval("select count(*) from shared.orders") == 0


async def a_used_connection_reads_nothing_without_context(world):
    await world.entered(world.ours, "select 1")
    async with world.databases.acquire(world.ours.placement) as connection:
        assert await connection.fetchval("select count(*) from shared.orders") == 0


async def own_rows_are_seen(world):
    assert await world.entered(world.ours, "select count(*) from orders") == 1


async def fences_of_others_are_unseen(world):
    assert await world.entered(world.ours, "select count(*) from tlsy.fence") == 1


async def context_ends_with_the_transaction(world):
    settings = "select current_setting(name, true) from unnest($1::text[]) as name"
    names = ["app.current_tenant", "app.epoch", "search_path"]
    await world.entered(world.ours, "select 1")
    async with world.databases.acquire(world.ours.placement) as connection:
        assert [row[0] for row in await connection.fetch(settings, names)] == ["", "", '""']


async def the_scope_ends_where_a_tenant_is_entered(world):
    enter = f"call tlsy.enter('{world.ours.tenant_id}', '{world.ours.epoch}', 'f')"
    async with world.databases.acquire(world.installation.control) as connection, connection.transaction():
        await connection.execute("select tlsy.enter_platform()")
        assert await connection.fetchval("select count(*) from prices") == 2
        await connection.execute(enter)
        assert await connection.fetchval("select count(*) from prices") == 1


async def a_schema_is_named_without_quotes(world):
    fence = "insert into tlsy.fence values (gen_random_uuid(), 1, true, 'ACTIVE', $1)"
    for name in ("shared, web_shop", '"$user"', "$user", "Shared", ""):
        with pytest.raises(asyncpg.CheckViolationError):
            await world.owner.execute(fence, name)


async def a_writer_that_passed_the_check_commits_before_the_flip(world):
    provisioner = await world.installation.connect("tlsy_migrator", world.installation.common)
    await provisioner.execute("set lock_timeout = '100ms'")
    flip = "select tlsy.set_fence($1, 2, true, 'ACTIVE', 'shared')"
    async with world.shop.transaction(world.ours.context, write=True) as tx:
        await tx.execute("insert into orders values ($1, 9, 'before the flip')", world.ours.tenant_id)
        with pytest.raises(asyncpg.LockNotAvailableError):
            await provisioner.execute(flip, world.ours.tenant_id)
    await provisioner.execute(flip, world.ours.tenant_id)


async def who_waited_for_the_flip_sees_the_fence_as_it_is_then(world):
    provisioner = await world.installation.connect("tlsy_migrator", world.installation.common)
    waits = "select from pg_locks where locktype = 'advisory' and not granted and database = (select oid from"
    async with provisioner.transaction():
        await provisioner.execute(
            "select tlsy.set_fence($1, 2, true, 'ACTIVE', 'shared')", world.ours.tenant_id
        )
        entering = asyncio.create_task(world.entered(world.ours, "select 1"))
        async with asyncio.timeout(60):
            while not await world.owner.fetch(f"{waits} pg_database where datname = current_database())"):
                await asyncio.sleep(0.01)
    with pytest.raises(StaleEpoch):
        await entering


async def a_stale_epoch_is_refused(world):
    with pytest.raises(StaleEpoch):
        await world.entered(replace(world.ours, epoch=7), "select 1")


async def a_suspended_tenant_is_not_written(world):
    await world.installation.converge(replace(world.ours, epoch=2), DesiredState.SUSPENDED)
    with pytest.raises(NotWritable):
        await world.entered(replace(world.ours, epoch=2), "select 1")


async def a_fence_does_not_go_back(world):
    set_fence = "select tlsy.set_fence($1, $2, $3, 'ACTIVE', 'shared')"
    await world.owner.execute(set_fence, world.ours.tenant_id, 3, True)
    await world.owner.execute(set_fence, world.ours.tenant_id, 3, True)
    for epoch, writable in ((2, True), (3, False)):
        with pytest.raises(asyncpg.PostgresError, match="FENCE_WENT_BACK") as raised:
            await world.owner.execute(set_fence, world.ours.tenant_id, epoch, writable)
        assert raised.value.sqlstate == "TL003"
    kept = "select (epoch, writable) from tlsy.fence where tenant_id = $1"
    assert await world.owner.fetchval(kept, world.ours.tenant_id) == (3, True)


def blind(statement: str, why: str) -> Callable[[World], Awaitable[None]]:
    """Under row-level security every table looks empty: who would judge by that is refused."""

    async def who_sees_nothing_judges_nothing(world):
        async with world.owner.transaction():
            await world.owner.execute("set local role tlsy_owner")
            with pytest.raises(asyncpg.PostgresError, match=why) as raised:
                await world.owner.fetch(statement)
            assert raised.value.sqlstate == "TL011"

    return who_sees_nothing_judges_nothing


def beside_enter(epoch: int, statement: str, expected: str) -> Callable[[World], Awaitable[None]]:
    """A tenant that is suspended at epoch 2, in a context that was set without enter()."""

    async def a_context_that_was_not_entered_is_fenced(world):
        await world.installation.converge(replace(world.ours, epoch=2), DesiredState.SUSPENDED)
        async with world.databases.acquire(world.ours.placement) as connection, connection.transaction():
            await connection.execute(
                f"select set_config('app.current_tenant', '{world.ours.tenant_id}', true),"
                f" set_config('app.epoch', '{epoch}', true), set_config('search_path', 'shared', true)"
            )
            try:
                result = await connection.execute(statement)
            except asyncpg.InsufficientPrivilegeError:
                result = "refused"
            assert result == expected

    return a_context_that_was_not_entered_is_fenced


async def a_new_partition_shows_nothing(world):
    await world.owner.execute("select tlsy.ensure_partition('shared.readings', 'day', '2020-01-01')")
    await world.owner.execute(
        "insert into shared.readings values ($1, '2020-01-01 12:00+00', 1)", world.ours.tenant_id
    )
    async with world.owner.transaction():
        await world.owner.execute("set local role tlsy_owner")
        assert await world.owner.fetchval("select count(*) from shared.readings_p20200101") == 0


def altered(
    function: str, old: str, new: str, *, control: bool = False
) -> Callable[[World], Awaitable[None]]:
    """A mutant of one of our functions, in the common or in the control database."""

    async def apply(world):
        await alter_function(world.control if control else world.owner, function, old, new)

    return apply


def executed(statement: str) -> Callable[[World], Awaitable[None]]:
    async def apply(world):
        await world.owner.execute(statement)

    return apply


async def lock_after_the_fence(world):
    await alter_function(world.owner, "tlsy.enter", LOCK, "true")
    path = "path := set_config('search_path'"
    late = "perform pg_advisory_xact_lock_shared(uuid_hash_extended(tenant, 0)); "
    await alter_function(world.owner, "tlsy.enter", path, late + path)


LOCK = "pg_advisory_xact_lock_shared(uuid_hash_extended(tenant, 0)) is not null"
INSERT = "insert into orders values (current_setting('app.current_tenant')::uuid, 5, '')"
KILLS = {
    "the policy": (
        rows_of_others_are_unseen,
        executed("alter policy tenant on shared.orders using (true)"),
    ),
    "the policy's check": (
        rows_for_others_are_refused,
        executed("alter policy tenant on shared.orders with check (true)"),
    ),
    "FORCE": (the_owner_sees_nothing, executed("alter table shared.orders no force row level security")),
    "nullif": (
        a_used_connection_reads_nothing_without_context,
        executed(
            "alter policy tenant on shared.orders "
            "using (tenant_id = (select current_setting('app.current_tenant', true))::uuid)"
        ),
    ),
    "the context call": (
        own_rows_are_seen,
        executed(
            "create or replace procedure tlsy.enter(tenant uuid, epoch bigint, write boolean) "
            "language sql as ''"
        ),
    ),
    "its transaction scope": (
        context_ends_with_the_transaction,
        altered("tlsy.enter", "tenant::text, true)", "tenant::text, false)"),
    ),
    "its epoch's transaction scope": (
        context_ends_with_the_transaction,
        altered("tlsy.enter", "enter.epoch::text, true)", "enter.epoch::text, false)"),
    ),
    "the search path": (
        own_rows_are_seen,
        altered("tlsy.enter", "path := set_config('search_path', path, true);", ""),
    ),
    "the search path's transaction scope": (
        context_ends_with_the_transaction,
        altered("tlsy.enter", "'search_path', path, true)", "'search_path', path, false)"),
    ),
    "the names of schemas": (
        a_schema_is_named_without_quotes,
        executed("alter table tlsy.fence drop constraint fence_schema_name_check"),
    ),
    "the end of the scope": (
        the_scope_ends_where_a_tenant_is_entered,
        altered("tlsy.enter", "set_config('app.scope', '', true) || ", "", control=True),
    ),
    "the fence's own policy": (
        fences_of_others_are_unseen,
        executed("alter policy tenant on tlsy.fence using (true)"),
    ),
    "the lock": (
        a_writer_that_passed_the_check_commits_before_the_flip,
        altered("tlsy.enter", LOCK, "true"),
    ),
    "the lock before the fence": (
        who_waited_for_the_flip_sees_the_fence_as_it_is_then,
        lock_after_the_fence,
    ),
    "the lock of the flip": (
        a_writer_that_passed_the_check_commits_before_the_flip,
        altered("tlsy.set_fence", "perform pg_advisory_xact_lock(uuid_hash_extended(tenant, 0));", "null;"),
    ),
    "the epoch check": (
        a_stale_epoch_is_refused,
        altered("tlsy.enter", "f.epoch = enter.epoch and (f", "(f"),
    ),
    "the check for writes": (
        a_suspended_tenant_is_not_written,
        altered("tlsy.enter", "f.writable or not enter.write", "true"),
    ),
    "the fence policy of SELECT": (
        beside_enter(7, "select from orders", "SELECT 0"),
        executed("alter policy fence on shared.orders using (true)"),
    ),
    "the fence policy of INSERT": (
        beside_enter(2, INSERT, "refused"),
        executed("alter policy fence on shared.orders with check (true)"),
    ),
    "the fence policy of UPDATE": (
        beside_enter(2, "update orders set note = 'changed'", "refused"),
        executed("alter policy fence on shared.orders with check (true)"),
    ),
    "the fence policy of DELETE": (
        beside_enter(2, "delete from orders", "DELETE 0"),
        executed("drop policy fence_delete on shared.orders"),
    ),
    "the order of fences": (
        a_fence_does_not_go_back,
        altered("tlsy.set_fence", "if not found then", "if false then"),
    ),
    "the sight of retention": (
        blind("select tlsy.drop_partitions('shared.readings', '9999-01-01')", "RETENTION_IS_BLIND"),
        altered("tlsy.drop_partitions", "row_security_active(old.name)", "false"),
    ),
    "the sight of erasure": (
        blind("select tlsy.erase_batch(gen_random_uuid(), 1)", "ERASURE_IS_BLIND"),
        altered("tlsy.tenant_tables", "row_security_active('tlsy.fence')", "false"),
    ),
    "the sight of verification": (
        blind("select tlsy.occupied(gen_random_uuid())", "ERASURE_IS_BLIND"),
        altered("tlsy.tenant_tables", "row_security_active('tlsy.fence')", "false"),
    ),
    "row-level security on a new partition": (
        a_new_partition_shows_nothing,
        altered(
            "tlsy.ensure_partition",
            "execute format('alter table %s enable row level security, force row level security', name);",
            "",
        ),
    ),
}


@pytest.mark.parametrize("guard", KILLS)
async def test_the_guard_holds(world, guard):
    await KILLS[guard][0](world)


@pytest.mark.parametrize("guard", KILLS)
async def test_without_the_guard_its_probe_fails(world, guard):
    probe, mutate = KILLS[guard]
    await mutate(world)
    with pytest.raises((AssertionError, pytest.fail.Exception, asyncpg.PostgresError, PlacementUnavailable)):
        await probe(world)


@pytest.mark.parametrize(
    ("tenant", "epoch", "write", "code"),
    [
        ("null", "1", "'t'", "TL001"),
        ("'{}'", "null", "'t'", "TL001"),
        ("'{}'", "2", "null", "TL002"),
        (f"'{UUID(int=0)}'", "2", "'f'", "TL001"),
    ],
)
async def test_nobody_is_let_in_by_what_is_not_said(world, tenant, epoch, write, code):
    await world.installation.converge(replace(world.ours, epoch=2), DesiredState.SUSPENDED)
    enter = f"call tlsy.enter({tenant.format(world.ours.tenant_id)}, {epoch}, {write})"
    async with world.databases.acquire(world.ours.placement) as connection:
        with pytest.raises(asyncpg.PostgresError) as raised:
            await connection.execute(f"begin; {enter}")
    assert raised.value.sqlstate == code


@pytest.mark.parametrize("spelling", ["", "{0.hex}", "{{{0}}}"])
async def test_a_tenant_that_is_set_by_hand_in_another_spelling_shows_nothing(world, spelling):
    text = spelling.format(world.ours.tenant_id)
    async with world.databases.acquire(world.ours.placement) as connection, connection.transaction():
        await connection.execute(
            f"select set_config('app.current_tenant', '{text}', true), set_config('app.epoch', '1', true)"
        )
        for table in ("shared.orders", "tlsy.fence"):
            assert await connection.fetchval(f"select count(*) from {table}") == 0


@pytest.mark.parametrize("mode", list(IsolationMode))
async def test_other_services_tables_are_out_of_reach(installation, mode):
    tenant = await installation.provisioned_tenant(mode)
    async with installation.databases("tlsy_relay").acquire(tenant.placement) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(f"select from {tenant.placement.schema}.orders")


async def test_a_partition_read_directly_is_refused(world):
    partition = await world.owner.fetchval(
        "select min(inhrelid::regclass::text) from pg_inherits where inhparent = 'shared.readings'::regclass"
    )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await world.entered(world.ours, f"select count(*) from {partition}")


async def test_the_platform_scope_exists_only_in_the_control_database(world):
    async with world.databases.acquire(world.installation.common) as connection:
        with pytest.raises(asyncpg.UndefinedFunctionError):
            await connection.execute("select tlsy.enter_platform()")
