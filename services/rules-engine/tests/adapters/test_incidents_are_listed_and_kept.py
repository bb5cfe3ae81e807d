from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from tlsy.rules_engine.adapters.postgres import read_statements
from tlsy.rules_engine.adapters.postgres.incidents import PostgresIncidents
from tlsy.rules_engine.ports import IncidentFilter
from tlsy.tenancy.partitions import delete_before

LAST = UUID(int=2**128 - 1)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
INSERT = """
insert into shared.incidents
select
    $1, ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'hot', 'v', 'key' || n,
    case when n % 1000 = 0 then 'OPEN' else 'RESOLVED' end, 'error', 'x', '', '{}', '{}', $2, $2, '',
    case when n % 1000 <> 0 then $2::timestamptz + n * interval '1 second' end, 0, 1, 0, false, '[]', 0, 1
from generate_series(1, 20000) n
"""
VERSIONS = """
insert into shared.rule_versions
select $1, 'v' || n, 'rule' || n % 100, '{}', 'ada', $2::timestamptz + n * interval '1 second'
from generate_series(1, 5000) n
"""
INDEXED: dict[str, tuple[str, list[Any]]] = {
    "incidents_by_key": ("current_incidents", [["key7", "key19"]]),
    "incidents_current": ("refresh_incidents", [["key1000", "key2000"], [1, 1], [0, 0]]),
    "incidents_to_clear": ("take_clears", []),
    "rule_versions_by_rule": ("list_versions", ["rule7", NOW, "", 10]),
}


@pytest.fixture
async def tenant(installation):
    made = await installation.provisioned_tenant()
    owner = await installation.connect("tlsy_migrator", made.placement)
    await owner.execute(INSERT, made.tenant_id, NOW)
    await owner.execute(VERSIONS, made.tenant_id, NOW)
    await owner.execute("analyze shared.incidents, shared.rule_versions")
    return made


async def test_the_open_ones_among_many_are_found_by_an_index(installation, tenant):
    statements = read_statements()
    wanted = IncidentFilter(states=["OPEN", "ACKNOWLEDGED"], rule_id="", site="")
    async with installation.tenancy("rules_engine").transaction(tenant.context, write=False) as tx:
        args = (tx.tenant_id, LAST, "", "", 100, ["ACKNOWLEDGED", "OPEN"])
        plan = await tx.fetch(f"explain {statements['list_incidents_in']}", *args)
        found = await PostgresIncidents(statements).page(tx, wanted, LAST, 7)
    assert any("incidents_by_state" in line[0] for line in plan), plan
    assert not any("Seq Scan" in line[0] for line in plan), plan
    ids = [int(stored.incident.id.rpartition("-")[2]) for stored in found]
    assert ids == [20_000, 19_000, 18_000, 17_000, 16_000, 15_000, 14_000]


async def test_one_that_opened_again_is_kept_and_found_as_it_is_now(installation, tenant):
    incidents, asked = PostgresIncidents(read_statements()), IncidentFilter(states=[], rule_id="", site="")
    async with installation.tenancy("rules_engine").transaction(tenant.context, write=True) as tx:
        (before,) = await incidents.page(tx, asked, LAST, 1)
        now = replace(before.incident, group={"site": "north"}, severity="critical", summary="burns")
        await incidents.put(tx, [replace(before, incident=now)])
        (found,) = await incidents.page(tx, replace(asked, site="north"), LAST, 2)
    assert found.incident == now


@pytest.mark.parametrize("index", INDEXED)
async def test_what_is_asked_of_large_tables_is_found_by_an_index(installation, tenant, index):
    name, args = INDEXED[index]
    async with installation.tenancy("rules_engine").transaction(tenant.context, write=False) as tx:
        plan = await tx.fetch(f"explain {read_statements()[name]}", tx.tenant_id, *args)
    assert any(index in line[0] for line in plan), plan
    assert not any("Seq Scan" in line[0] for line in plan), plan


async def test_retention_deletes_old_resolved_ones_alone_and_finds_them_by_an_index(installation, tenant):
    owner = await installation.connect("tlsy_migrator", tenant.placement)
    before = NOW + timedelta(seconds=10_000)
    arguments = (owner, "shared.incidents", "resolved_at", tenant.tenant_id, before)
    assert await delete_before(*arguments, batch=1_000) == 9_990
    left = await owner.fetchrow("select count(*), count(resolved_at), min(resolved_at) from shared.incidents")
    assert tuple(left) == (10_010, 9_990, NOW + timedelta(seconds=10_001))
    await owner.execute("select pg_stat_force_next_flush()")
    sql = "select idx_scan from pg_stat_user_indexes where indexrelname = 'incidents_resolved'"
    assert await owner.fetchval(sql) >= 10
