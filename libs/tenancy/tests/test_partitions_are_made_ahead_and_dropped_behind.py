from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tlsy.tenancy.context import IsolationMode
from tlsy.tenancy.partitions import delete_before, forget_requests, maintain, make_partitions

PARTITIONS = """
select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = $1::text::regclass order by 1
"""


async def partitions_of(connection, table) -> list[str]:
    return [row["relname"] for row in await connection.fetch(PARTITIONS, table)]


@pytest.fixture
async def migrator(installation):
    return await installation.connect("tlsy_migrator", installation.common)


@pytest.fixture
def today(installation):
    """That of the partitions that there are: the day on the calendar may end between two of its lines."""
    return installation.built_on


async def test_partitions_reach_from_behind_to_ahead(migrator, today):
    days = [today + timedelta(days=offset) for offset in range(-2, 8)]
    assert await partitions_of(migrator, "shared.readings") == [f"readings_p{day:%Y%m%d}" for day in days]


async def test_a_schema_of_many_has_monthly_ones(installation, migrator, today):
    tenant = await installation.provisioned_tenant(IsolationMode.SCHEMA)
    names = await partitions_of(migrator, f"{tenant.placement.schema}.readings")
    assert f"readings_p{today:%Y%m}" in names
    assert len(names) <= 2


async def test_a_new_day_makes_one_more_and_a_second_round_none(migrator, today):
    tomorrow = today + timedelta(days=1)
    await make_partitions(migrator, today)
    assert await make_partitions(migrator, tomorrow) == 3  # outbox, inbox, readings
    assert await make_partitions(migrator, tomorrow) == 0


async def test_what_lies_further_behind_comes_with_the_first_round(migrator, today):
    assert len(await partitions_of(migrator, "web_shop.inbox")) == 4
    await make_partitions(migrator, today)
    assert len(await partitions_of(migrator, "web_shop.inbox")) == 12


async def test_two_workers_do_not_get_in_each_others_way(installation, today):
    day = today + timedelta(days=3)
    workers = [await installation.connect("tlsy_migrator", installation.common) for _ in range(2)]
    await make_partitions(workers[0], today)
    made = await asyncio.gather(*(make_partitions(worker, day) for worker in workers))
    assert sum(made) == 9


async def test_what_is_past_its_retention_is_dropped(migrator, today):
    done = await maintain(migrator, today + timedelta(days=36))
    oldest = (await partitions_of(migrator, "shared.readings"))[0]
    assert oldest == f"readings_p{today + timedelta(days=1):%Y%m%d}"
    assert done.dropped > 2


async def test_an_outbox_partition_with_an_unpublished_row_is_kept(installation, migrator, today):
    tenant = await installation.provisioned_tenant()
    await migrator.execute(
        "insert into web_shop.outbox (tenant_id, day, event_id, key, type, source, epoch, occurred_at, data) "
        "values ($1, $2, gen_random_uuid(), 'k', 't', 's', 1, now(), '')",
        tenant.tenant_id,
        today,
    )
    await maintain(migrator, today + timedelta(days=30))
    kept = [
        name for name in await partitions_of(migrator, "web_shop.outbox") if name < f"outbox_p{today:%Y%m%d}x"
    ]
    assert kept == [f"outbox_p{today:%Y%m%d}"]


async def test_a_locked_table_waits_for_the_next_round(installation, migrator, today):
    reader = await installation.connect(None, installation.common)
    async with reader.transaction():
        await reader.fetchval("select count(*) from shared.readings")
        done = await maintain(migrator, today + timedelta(days=36))
    assert done.busy == ("shared.readings",)
    assert (await maintain(migrator, today + timedelta(days=36))).dropped > 0


async def test_one_tenants_old_rows_go_and_anothers_stay(installation, migrator):
    ours, theirs = [await installation.provisioned_tenant() for _ in range(2)]
    for tenant in (ours, theirs):
        await migrator.execute(
            "insert into shared.readings "
            "select $1, now() - make_interval(hours => h), h from generate_series(0, 30) h",
            tenant.tenant_id,
        )
    limit = datetime.now(UTC) - timedelta(hours=20)
    assert await delete_before(migrator, "shared.readings", "ts", ours.tenant_id, limit, batch=4) == 11
    left = await migrator.fetch("select tenant_id, count(*) from shared.readings group by 1")
    assert {row["tenant_id"]: row["count"] for row in left} == {ours.tenant_id: 20, theirs.tenant_id: 31}


async def test_old_rows_are_found_by_their_key_and_never_by_reading_partitions_whole(
    installation, migrator, today
):
    tenant = await installation.provisioned_tenant()
    for days in range(3, 8):
        day = today - timedelta(days=days)
        await migrator.execute("select tlsy.ensure_partition('shared.readings', 'day', $1)", day)
    await migrator.execute(
        "insert into shared.readings "
        "select case n % 50 when 0 then $1 else gen_random_uuid() end,"
        " now() - (n % 8) * interval '1 day', n from generate_series(1, 30000) n",
        tenant.tenant_id,
    )
    await migrator.execute("analyze shared.readings")
    counted = (
        "select sum(seq_scan)::int from pg_stat_all_tables t join pg_inherits i on i.inhrelid = t.relid "
        "where i.inhparent = 'shared.readings'::regclass"
    )
    flushed = "select pg_stat_force_next_flush()"
    await migrator.execute(flushed)
    before = await migrator.fetchval(counted)
    limit = datetime.now(UTC) - timedelta(days=5, hours=12)
    assert await delete_before(migrator, "shared.readings", "ts", tenant.tenant_id, limit, batch=50) == 150
    await migrator.execute(flushed)
    assert await migrator.fetchval(counted) == before


async def test_retention_is_the_same_in_every_time_zone(migrator, today):
    for days in (36, 35):
        day = today - timedelta(days=days)
        await migrator.execute("select tlsy.ensure_partition('shared.readings', 'day', $1)", day)
    await migrator.execute("set timezone = 'America/New_York'; set datestyle = 'German'")
    done = await maintain(migrator, today)
    oldest = (await partitions_of(migrator, "shared.readings"))[0]
    assert (done.dropped, oldest) == (1, f"readings_p{today - timedelta(days=35):%Y%m%d}")
    assert done.days_ahead == 3  # outbox and inbox: today and two more


async def test_a_table_that_fails_is_named_and_stops_no_other(installation, migrator, today):
    await migrator.execute("insert into tlsy.time_table values ('aaa_gone', 'events', 'day', 1, 1, 2, 7)")
    done = await maintain(migrator, today + timedelta(days=1))
    assert done.made > 3
    assert done.failed == {"aaa_gone.events": 'schema "aaa_gone" does not exist'}
    assert done.days_ahead == 3


async def test_answers_that_have_expired_are_forgotten_in_every_service_and_mode(installation):
    tenants = [await installation.provisioned_tenant(mode) for mode in IsolationMode]
    now = datetime.now(UTC)
    for placement in (installation.common, tenants[-1].placement, installation.control):
        connection = await installation.connect("tlsy_migrator", placement)
        for tenant in tenants:
            await connection.execute(
                "insert into web_shop.idempotency select $1, 'p', 'm', gen_random_uuid(), '', '', "
                "$2::timestamptz + make_interval(hours => h) from generate_series(-5, 4) h",
                tenant.tenant_id,
                now,
            )
        assert await forget_requests(connection, now, batch=4) == 15
        assert await connection.fetchval("select min(expires_at) from web_shop.idempotency") >= now
