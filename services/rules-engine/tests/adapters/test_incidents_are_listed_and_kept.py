from __future__ import annotations

from datetime import UTC, datetime, timedelta
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


@pytest.fixture
async def tenant(installation):
    made = await installation.provisioned_tenant()
    owner = await installation.connect("tlsy_migrator", made.placement)
    await owner.execute(INSERT, made.tenant_id, NOW)
    await owner.execute("analyze shared.incidents")
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


async def test_retention_deletes_old_resolved_ones_alone(installation, tenant):
    owner = await installation.connect("tlsy_migrator", tenant.placement)
    before = NOW + timedelta(seconds=10_000)
    arguments = (owner, "shared.incidents", "resolved_at", tenant.tenant_id, before)
    assert await delete_before(*arguments, batch=1_000) == 9_990
    left = await owner.fetchrow("select count(*), count(resolved_at), min(resolved_at) from shared.incidents")
    assert tuple(left) == (10_010, 9_990, NOW + timedelta(seconds=10_001))
