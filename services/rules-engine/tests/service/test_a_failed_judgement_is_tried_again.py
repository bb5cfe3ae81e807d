"""Judgements that fail: of whose fault it was depends what happens to the tenant's rules."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest
from prometheus_client import CollectorRegistry

from tlsy.contracts.events import INCIDENT_CHANGED
from tlsy.contracts.rules_engine.events.v1.events_pb2 import IncidentChanged
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb
from tlsy.eventlog.errors import RetryableError, TenantPaused
from tlsy.rpc.audit import AuditTrail
from tlsy.rules_engine import app
from tlsy.rules_engine.domain.rows import pack
from tlsy.rules_engine.handlers.effects import Effects
from tlsy.rules_engine.handlers.incident_book import MAX_OPENED, MAX_TOLD
from tlsy.rules_engine.handlers.memory import Memories
from tlsy.rules_engine.handlers.metrics import RulesMetrics
from tlsy.rules_engine.handlers.turn import SLICE
from tlsy.rules_engine.settings import RulesEngineSettings
from tlsy.tenancy.database import Databases, PoolLimits
from tlsy.tenancy.errors import DatabaseBusy
from tlsy.tenancy.unit_of_work import Tenancy
from tlsy.testkit.wire import counted

from .world import CLOCK, IDS, event, now_us, until


class Judge:
    """Judges events in transactions of its own, with no log and no partition that could be lost.

    As the log's consumer does, it tries again what can be tried again.
    """

    def __init__(self, tenancy, tenant, trail=None):
        self._tenancy, self._tenant = tenancy, tenant
        effects = Effects(trail or AuditTrail("rules-engine", CLOCK, IDS), clock=CLOCK, ids=IDS)
        registry = CollectorRegistry()
        metrics, self.counted = RulesMetrics(registry), registry.get_sample_value
        self._evaluation = app._evaluation(effects, RulesEngineSettings(), Memories(10), metrics)

    async def run(self, *events):
        async def work(tx, *, again=False):
            await self._evaluation.judge(tx, self._tenant.slug, 0, [events], again=again)

        try:
            await self._tenancy.run(self._tenant.tenant_id, work, write=True)
        except TenantPaused:
            raise
        except RetryableError:
            await self._tenancy.run(self._tenant.tenant_id, partial(work, again=True), write=True)


@pytest.fixture
async def tenancy(installation):
    return installation.tenancy("rules_engine")


@asynccontextmanager
async def transactions(installation, address, limits):
    databases = Databases({"local": address}, limits, CLOCK)
    yield Tenancy(
        package="rules_engine",
        databases=databases,
        catalog=installation.catalog,
        control=installation.control,
    )
    await databases.close()


@pytest.fixture
async def deaf(installation, postgres_server):
    """Its server knows nothing of the limits, as behind a pooler: the client gives up after a second."""
    address = replace(postgres_server.address("tlsy_rules_engine"), pooled=True)
    async with transactions(installation, address, PoolLimits(statement_timeout_s=0.0)) as tenancy:
        yield tenancy


async def test_what_does_not_fail_waits_for_the_database_as_seldom_as_it_can(
    world, tenant, replica, installation, postgres_server
):
    await world.publish(tenant)
    await replica.stop(5)
    with counted(postgres_server.address("tlsy_rules_engine")) as wire:
        async with transactions(installation, wire.address, PoolLimits()) as tenancy:
            judge, trips = Judge(tenancy, tenant), []
            for value in (1.0, 97.0, 1.0, 1.0, 97.0):
                wire.clear()
                await judge.run(event(value))
                trips.append(wire.trips)
    # Begin, the rule set, state, the outbox, commit; and for an incident what is known of it, and its row.
    assert trips[-2:] == [5, 7]


async def halted(world, tenant):
    answer = await world.stub(tenant).ListRules(pb.ListRulesRequest(parent=f"tenants/{tenant.slug}"))
    return [rule.name.rpartition("/")[2] for rule in answer.rules if rule.halt_reason]


async def test_a_statement_without_an_answer_is_no_rule_s_fault(world, installation, tenant, replica, deaf):
    await world.publish(tenant)
    judge = Judge(deaf, tenant)
    owner = await installation.connect("tlsy_migrator", tenant.placement)
    async with owner.transaction():
        await owner.execute("lock table shared.incidents in access exclusive mode")
        with pytest.raises(DatabaseBusy, match="no answer"):
            await judge.run(event())
    await judge.run(event())
    await world.incident(tenant)
    assert await halted(world, tenant) == []


class BrokenTrail:
    """A defect that has nothing to do with rules."""

    def usage(self, *args):
        raise ValueError("a defect of ours")


async def test_a_defect_outside_the_engine_halts_no_rule(world, tenant, replica, tenancy):
    for name in ("one", "two"):
        await world.publish(tenant, name)
    with pytest.raises(TenantPaused, match="JUDGING_FAILED"):
        await Judge(tenancy, tenant, BrokenTrail()).run(event())
    assert await halted(world, tenant) == []
    await Judge(tenancy, tenant).run(event())
    await world.incident(tenant, count=2)


class OnceBrokenTrail(AuditTrail):
    """Fails when something was stored and told already, if it is told to."""

    fails = False

    def usage(self, *args):
        if self.fails:
            self.fails = False
            raise ValueError("a defect of ours")
        return super().usage(*args)


async def test_of_a_try_that_failed_nothing_is_left(world, tenant, replica, tenancy):
    await world.publish(tenant, "held", for_s=1)
    await world.publish(tenant, "hot", when={"gt": [{"field": "value"}, 96]})
    await replica.stop(5)
    trail = OnceBrokenTrail("rules-engine", CLOCK, IDS)
    judge = Judge(tenancy, tenant, trail)
    await judge.run(event(95, time_us=now_us() - 10_000_000))
    owner = await world.installation.connect("tlsy_migrator", tenant.placement)
    await owner.execute("update shared.rule_state set payload = '\\xc1' where owner <> 'source'")
    trail.fails = True
    await judge.run(event(97))
    assert not trail.fails
    reasons = await world.rows(tenant, "select rule_id from rules where halted_at is not null")
    assert [row["rule_id"] for row in reasons] == ["held"]
    incidents = await world.rows(tenant, "select rule_id, occurrences from incidents")
    assert [tuple(row) for row in incidents] == [("hot", 1)]
    told = await world.published(tenant, INCIDENT_CHANGED)
    assert [IncidentChanged.FromString(data).incident.occurrence_count for data in told] == [1]


async def test_a_defect_that_shows_once_halts_no_rule_and_is_logged(world, tenant, replica, tenancy, capsys):
    """Nothing else would tell of it."""
    await world.publish(tenant)
    await replica.stop(5)
    trail = OnceBrokenTrail("rules-engine", CLOCK, IDS)
    trail.fails = True
    await Judge(tenancy, tenant, trail).run(event(97))
    assert not trail.fails
    sql = "select (select count(*) from incidents), (select count(*) from rules where halted_at is not null)"
    assert [tuple(row) for row in await world.rows(tenant, sql)] == [(1, 0)]
    assert "a defect of ours" in capsys.readouterr().out


async def test_while_a_rule_is_halted_nobody_changes_the_rule_set(world, tenant, replica, tenancy):
    await world.publish(tenant)
    await replica.stop(5)
    judge = Judge(tenancy, tenant)
    await judge.run(event(97))
    owner = await world.installation.connect("tlsy_migrator", tenant.placement)
    other = await world.installation.connect("tlsy_migrator", tenant.placement)
    await owner.execute("update shared.rule_state set payload = '\\xc1' where owner <> 'source'")
    await owner.execute("update shared.rule_set set stamp = gen_random_uuid()")
    async with owner.transaction():
        await owner.execute("select from shared.rules for update")
        running = asyncio.create_task(judge.run(event(97)))

        async def halting():
            sql = "select true from pg_stat_activity where $1 = any(pg_blocking_pids(pid))"
            return await other.fetchval(sql, owner.get_server_pid())

        await until(halting)
        assert await other.fetch("select from shared.rule_set for update skip locked") == []
    await running


async def test_what_an_operator_resolved_is_cleared_though_a_rule_is_halted(world, tenant, replica, tenancy):
    await world.publish(tenant, "held", for_s=3_600)
    await world.publish(tenant, "hot", when={"gt": [{"field": "value"}, 96]})
    await replica.stop(5)
    judge = Judge(tenancy, tenant)
    owner = await world.installation.connect("tlsy_migrator", tenant.placement)
    await judge.run(event(97))
    spoilt = pack([False, now_us(), now_us(), None, ["x"], now_us() + 10**10, {}])
    sql = "update shared.rule_state set payload = $1 where key like '%agent%' and owner = any($2)"
    held = await owner.fetch("select live_version from shared.rules where rule_id = 'held'")
    await owner.execute(sql, spoilt, [row["live_version"] for row in held])
    await owner.execute(
        "update shared.incidents set state = 'RESOLVED', resolved_at = now(), firing_groups = 0,"
        " clear_pending = true"
    )
    await owner.execute("update shared.rule_set set clears = 1, stamp = gen_random_uuid()")
    await judge.run(event(97))
    reasons = await world.rows(tenant, "select rule_id from rules where halted_at is not null")
    assert [row["rule_id"] for row in reasons] == ["held"]
    incidents = await world.rows(tenant, "select state, clear_pending from incidents")
    assert [tuple(row) for row in incidents] == [("OPEN", False)]


async def test_incidents_of_state_that_cannot_be_read_are_resolved(world, tenant, replica, tenancy):
    await world.publish(tenant)
    await replica.stop(5)
    judge = Judge(tenancy, tenant)
    await judge.run(*(event(97, source=f"agent/{number}") for number in range(SLICE + 2)))
    owner = await world.installation.connect("tlsy_migrator", tenant.placement)
    await owner.execute("update shared.rule_state set payload = '\\xc1' where owner <> 'source'")
    await owner.execute("update shared.rule_set set stamp = gen_random_uuid()")
    await judge.run(event(97))
    incidents = await world.rows(tenant, "select state, firing_groups from incidents")
    assert [tuple(row) for row in incidents] == [("RESOLVED", 0)] * (SLICE + 2)
    told = await world.published(tenant, INCIDENT_CHANGED)
    changes = Counter(IncidentChanged.FromString(data).change for data in told)
    assert changes == {"opened": SLICE + 2, "resolved": SLICE}
    assert judge.counted("tlsy_rules_left_out_total", {"reason": "changes_untold"}) == 2


async def test_what_a_flood_leaves_out_is_counted(world, tenant, replica, tenancy):
    await world.publish(tenant)
    await replica.stop(5)
    judge, began = Judge(tenancy, tenant), now_us()
    flood = [
        event(1.0 if step % 2 else 97.0, source=f"agent/{number}", time_us=began + step)
        for step in range(5)
        for number in range(MAX_OPENED + 1)
    ]
    await judge.run(*flood)
    reasons = {"incidents_refused": 3, "changes_untold": 5 * MAX_OPENED - MAX_TOLD}
    assert reasons == {
        reason: judge.counted("tlsy_rules_left_out_total", {"reason": reason}) for reason in reasons
    }


async def test_firings_again_are_counted_though_memories_are_lost(world, tenant, replica, tenancy):
    await world.publish(tenant)
    await replica.stop(5)
    judge = Judge(tenancy, tenant)
    for _ in range(5):
        await judge.run(event(97))
    counted = "select occurrences, (select count(*) from rule_state where owner = 'refreshes') from incidents"
    assert [tuple(row) for row in await world.rows(tenant, counted)] == [(2, 3)]
    judge = Judge(tenancy, tenant)
    await judge.run(event(97))
    assert [tuple(row) for row in await world.rows(tenant, counted)] == [(6, 0)]


async def test_firings_again_that_wait_are_counted_when_the_rule_resolves(world, tenant, replica, tenancy):
    await world.publish(tenant)
    await world.publish(tenant, "other", when={"lt": [{"field": "value"}, 1_000]})
    await replica.stop(5)
    judge = Judge(tenancy, tenant)
    for value in (97, 97, 97, 97, 1):
        await judge.run(event(value))
    counted = "select rule_id, state, occurrences from incidents order by rule_id"
    for other in (2, 6):
        assert [tuple(row) for row in await world.rows(tenant, counted)] == [
            ("hot", "RESOLVED", 4),
            ("other", "OPEN", other),
        ]
        judge = Judge(tenancy, tenant)
        await judge.run(event(1))


@pytest.mark.parametrize("publish", [False, True], ids=["by the same rule", "by one that groups otherwise"])
async def test_firings_again_are_counted_though_an_operator_resolves(world, tenant, tenancy, publish):
    await world.replica(role="api")
    await world.publish(tenant)
    judge = Judge(tenancy, tenant)
    for _ in range(4):
        await judge.run(event(97))
    opened = await world.incident(tenant)
    await world.stub(tenant).ResolveIncident(pb.ResolveIncidentRequest(name=opened.name))
    if publish:
        await world.publish(tenant, group_by=["source"])
    await judge.run(event(1))
    found = await world.rows(tenant, "select state, occurrences, clear_pending from incidents")
    assert [tuple(row) for row in found] == [("RESOLVED", 4, False)]
