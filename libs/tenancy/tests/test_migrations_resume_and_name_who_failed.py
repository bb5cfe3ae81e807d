from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tlsy.tenancy.cluster import create_database
from tlsy.tenancy.context import IsolationMode, Placement
from tlsy.tenancy.lint import lint
from tlsy.tenancy.migrations import (
    Component,
    MigrationFailed,
    Revision,
    Schemas,
    batch,
    create_schemas,
    migrate,
    pending,
    versions,
)
from tlsy.tenancy.rendering import render


def extended(components: tuple[Component, ...], *sql: str) -> tuple[Component, ...]:
    """The same components, the last one with more revisions."""
    more = tuple(Revision(f"1{number:03}", text) for number, text in enumerate(sql))
    last = components[-1]
    return (*components[:-1], replace(last, revisions=last.revisions + more))


async def migrator(installation, placement=None):
    return await installation.connect("tlsy_migrator", placement or installation.common)


def test_text_is_rendered_as_it_was_written(service_migrations):
    revisions = render(service_migrations[0], "tenant")
    assert [revision.id for revision in revisions] == ["0001", "0002"]
    assert "default '100%'" in revisions[1].sql
    assert "alembic" not in "".join(revision.sql for revision in revisions)


async def test_at_the_head_there_is_nothing_to_do(installation):
    connection = await migrator(installation)
    assert await migrate(connection, installation.schemas.common()) == ()


async def test_a_failed_revision_is_named_and_those_before_it_stay(installation):
    connection = await migrator(installation)
    broken = extended(installation.schemas.common(), "create table a (tenant_id uuid)", "select 1 / 0")
    with pytest.raises(MigrationFailed) as raised:
        await migrate(connection, broken)
    assert (raised.value.revision, raised.value.schema, raised.value.sqlstate) == ("1001", "shared", "22012")
    mended = extended(installation.schemas.common(), "select 1 / 0", "create table b (id int)")
    assert [applied.revision for applied in await migrate(connection, mended)] == ["1001"]


async def test_a_revision_and_its_version_row_commit_together(installation):
    connection = await migrator(installation)
    with pytest.raises(MigrationFailed):
        await migrate(
            connection, extended(installation.schemas.common(), "create table a (id int); select 1 / 0")
        )
    assert await connection.fetchval("select to_regclass('shared.a') is null")
    assert (await versions(connection))["web-shop", "shared"] == "0002"


async def test_a_backfill_changes_all_tenants_rows_and_says_how_many(installation):
    for _ in range(3):
        await installation.provisioned_tenant()
    steps = extended(
        installation.schemas.common(),
        "alter table orders add column size int",
        "select tlsy.backfill('orders', 'update orders set size = 1 where size is null')",
    )
    applied = await migrate(await migrator(installation), steps)
    assert applied[-1].backfilled == {"orders": 3}


async def test_a_backfill_that_touches_nothing_on_a_table_with_rows_fails(installation):
    await installation.provisioned_tenant()
    steps = extended(
        installation.schemas.common(),
        "select tlsy.backfill('orders', 'update orders set note = 1 where false')",
    )
    with pytest.raises(MigrationFailed) as raised:
        await migrate(await migrator(installation), steps)
    assert raised.value.sqlstate == "TL010"


async def test_a_backfill_of_an_empty_table_is_fine(installation):
    steps = extended(
        installation.schemas.common(), "select tlsy.backfill('orders', 'update orders set note = note')"
    )
    assert (await migrate(await migrator(installation), steps))[-1].backfilled == {"orders": 0}


async def test_a_backfill_under_row_level_security_is_refused(installation):
    owner = await installation.connect(None, installation.common)
    await owner.execute(
        "create role tlsy_blind login in role tlsy_owner; set session authorization tlsy_blind"
    )
    steps = extended(installation.schemas.common(), "select tlsy.backfill('orders', 'delete from orders')")
    with pytest.raises(MigrationFailed) as raised:
        await migrate(owner, steps)
    await owner.execute("reset session authorization; drop role tlsy_blind")
    assert raised.value.sqlstate == "TL011"


def granting(components: tuple[Component, ...], sql: str) -> tuple[Component, ...]:
    last = components[-1]
    return (*components[:-1], replace(last, grants=last.grants + sql))


async def nobody_else_waits(installation):
    """Another runner, which would not wait, has its turn."""
    other = await migrator(installation)
    await other.execute("set lock_timeout = '1ms'")
    assert await migrate(other, installation.schemas.common()) == ()


async def test_a_failed_grant_is_named_and_leaves_no_lock(installation):
    databases = installation.databases("tlsy_migrator")
    broken = granting(installation.schemas.common(), "grant select on no_such to tlsy_web_shop;")
    with pytest.raises(MigrationFailed) as raised:
        async with databases.acquire(installation.common) as connection:
            await migrate(connection, broken)
    assert (raised.value.revision, raised.value.sqlstate) == ("grants", "42P01")
    await nobody_else_waits(installation)


async def test_a_cancelled_migration_is_cancelled_and_leaves_no_lock(installation):
    databases = installation.databases("tlsy_migrator")
    slow = extended(installation.schemas.common(), "create table a (id int); select pg_sleep(60)")

    async def run():
        async with databases.acquire(installation.common) as connection:
            await migrate(connection, slow)

    running = asyncio.create_task(run())
    owner = await installation.connect(None, installation.common)
    sleeping = "select from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"
    async with asyncio.timeout(60):
        while not await owner.fetch(sleeping):
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await nobody_else_waits(installation)


async def test_two_runners_take_turns_and_do_each_revision_once(installation):
    steps = extended(installation.schemas.common(), "create table a (id int)", "create table b (id int)")
    runners = [await migrator(installation) for _ in range(3)]
    done = await asyncio.gather(*(migrate(runner, steps) for runner in runners))
    assert sorted(applied.revision for each in done for applied in each) == ["1000", "1001"]


@pytest.mark.parametrize(
    ("place", "table"),
    [("common", "shared.orders"), ("common", "shared.readings"), ("control", "web_shop.prices")],
)
async def test_what_is_not_declared_any_more_is_revoked(installation, service_migrations, place, table):
    placement = getattr(installation, place)
    owner = await installation.connect(None, placement)
    await owner.execute(f"grant truncate, delete on {table} to tlsy_web_shop")
    less = replace(service_migrations[0], tenant_grants={"orders": ("select",)}, control_grants={})
    await migrate(await migrator(installation, placement), getattr(Schemas([less]), place)())
    assert not await owner.fetchval(
        "select has_table_privilege('tlsy_web_shop', $1, 'truncate, delete, insert')", table
    )
    assert await lint(owner, [less]) == ()


async def test_a_tenants_schema_that_is_gone_is_not_made_again(installation):
    tenant = await installation.provisioned_tenant(IsolationMode.SCHEMA)
    steps = extended(installation.schemas.tenant(tenant.placement.schema), "create table a (id int)")
    connection = await migrator(installation)
    await connection.execute("select tlsy.drop_schema($1)", tenant.placement.schema)
    with pytest.raises(MigrationFailed):
        await migrate(connection, steps)
    assert await connection.fetchval("select to_regnamespace($1) is null", tenant.placement.schema)


def test_a_revision_that_is_not_known_here_is_refused(database_templates):
    with pytest.raises(ValueError, match="not known here"):
        pending(database_templates.schemas.tenant("shared")[-1], "9999")


CATALOGUE = """
select c.relkind::text, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
    c.relrowsecurity, c.relforcerowsecurity, c.relacl::text, coalesce(pg_get_expr(d.adbin, d.adrelid), ''),
    array(select pg_get_indexdef(i.indexrelid) from pg_index i where i.indrelid = c.oid order by 1)::text,
    array(select pg_get_constraintdef(k.oid) from pg_constraint k where k.conrelid = c.oid order by 1)::text,
    array(select row(p.polname, p.polcmd, pg_get_expr(p.polqual, c.oid))::text
          from pg_policy p where p.polrelid = c.oid order by 1)::text
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where c.relnamespace = $1::text::regnamespace and c.relkind in ('r', 'p')
order by 1, 2, 3
"""


async def test_a_schema_from_the_template_is_the_schema_migrated_step_by_step(installation):
    tenants = [await installation.provisioned_tenant(IsolationMode.SCHEMA) for _ in range(2)]
    made, stepped = (tenant.placement.schema for tenant in tenants)
    connection = await migrator(installation)
    await connection.execute(
        f"drop schema {stepped} cascade; delete from tlsy.version where schema_name = '{stepped}';"
        f"delete from tlsy.time_table where schema_name = '{stepped}';{create_schemas([stepped])}"
    )
    await migrate(connection, installation.schemas.tenant(stepped))
    catalogues = [
        [
            tuple(str(value).replace(schema, "") for value in row)
            for row in await connection.fetch(CATALOGUE, schema)
        ]
        for schema in (made, stepped)
    ]
    assert catalogues[0] == catalogues[1] != []


async def test_a_database_from_the_template_is_the_database_migrated_step_by_step(installation):
    dedicated = await installation.provisioned_tenant(IsolationMode.DEDICATED)
    stepped = Placement("local", f"{installation.common.database}_stepped", "tenant")
    maintenance = await migrator(installation, Placement("local", "postgres", ""))
    await create_database(maintenance, stepped.database)
    catalogues = []
    for placement in (dedicated.placement, stepped):
        connection = await migrator(installation, placement)
        await migrate(connection, installation.schemas.dedicated())
        catalogues.append(
            [list(map(tuple, await connection.fetch(CATALOGUE, s))) for s in ("tlsy", "web_shop", "tenant")]
        )
    await maintenance.execute(f"drop database {stepped.database} with (force)")
    assert catalogues[0] == catalogues[1]
    assert all(catalogues[0])


async def test_a_batch_names_every_version(installation):
    text = batch(installation.schemas.tenant("t_" + "a" * 32))
    assert text.count("select tlsy.set_version(") == len(installation.schemas.services)
