from __future__ import annotations

import asyncio
import json
import random
from collections import Counter

import pytest

from tlsy.contracts.events import INCIDENT_CHANGED
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb
from tlsy.rules_engine.domain.canonical import load_rule
from tlsy.rules_engine.domain.compiler import compile_rules
from tlsy.rules_engine.domain.engine import Engine, EngineLimits
from tlsy.rules_engine.domain.problems import RuleLimits
from tlsy.rules_engine.domain.rows import REFRESHES_OWNER, SOURCE_OWNER
from tlsy.rules_engine.handlers.engine_events import engine_events
from tlsy.tenancy.context import IsolationMode

from .world import accepted, event, now_us, until

RECORD = 8  # events
COUNT = {"fn": "count", "over_s": 60, "op": "ge", "threshold": 3}


def stream(seed, size):
    """Events of a few sources around the thresholds, a little out of order."""
    chance, began = random.Random(seed), now_us()
    return [
        event(
            chance.choice([10, 60, 95]),
            time_us=began + number * 100_000 - chance.randrange(500_000),
            source=f"agent/{chance.randrange(4)}",
        )
        for number in range(size)
    ]


async def uninterrupted(world, tenant, events):
    """One engine that saw all events, record by record, and the transitions that it made."""
    rows = await world.rows(tenant, "select version_id, document from rule_versions")
    rules = [(row["version_id"], load_rule(row["document"].encode(), RuleLimits())) for row in rows]
    compiled = compile_rules(sorted(rules, key=lambda version: version[1].name))
    engine = Engine(compiled, EngineLimits())
    records = [events[start : start + RECORD] for start in range(0, len(events), RECORD)]
    effects = [engine.apply(engine_events(record, compiled.programs), now_us()) for record in records]
    return engine, [transition for each in effects for transition in each.transitions]


async def judged(world, tenant):
    """How often each (rule, step, instant) is in the timelines."""
    rows = await world.rows(tenant, "select rule_id, timeline::text from incidents")
    return Counter(
        (row["rule_id"], "open" if entry["kind"] in {"OPENED", "REOPENED"} else "resolve", entry["at_us"])
        for row in rows
        for entry in json.loads(row["timeline"])
    )


async def counted(world, tenant):
    """How often each rule fired."""
    rows = await world.rows(tenant, "select rule_id, occurrences from incidents")
    return Counter(row["rule_id"] for row in rows for _ in range(row["occurrences"]))


async def test_replicas_that_come_and_go_do_what_one_engine_does(world):
    tenants = [await world.tenant() for _ in range(3)]
    await world.replica()
    for tenant in tenants:
        await world.publish(tenant, "hot")
        await world.publish(tenant, "warm", when={"gt": [{"field": "value"}, 50]}, for_s=1)
        await world.publish(tenant, "many", window=COUNT, group_by=["source"])
    sent = {tenant.tenant_id: stream(number, 240) for number, tenant in enumerate(tenants)}
    for step in range(0, 240, RECORD):
        if step == 64:
            await world.replica()
        if step == 128:
            await world.replicas.pop(0).stop(0)
            world.hosts.pop(0)
        if step == 176:
            await world.replica()
        await world.send(*(accepted(t, *sent[t.tenant_id][step : step + RECORD]) for t in tenants))
    for tenant in tenants:
        engine, transitions = await uninterrupted(world, tenant, sent[tenant.tenant_id])
        expected = Counter((t.rule, t.kind, t.at_us) for t in transitions if t.kind != "refresh")

        async def done(tenant=tenant, expected=expected):
            return await judged(world, tenant) == expected

        await until(done)
        fired = Counter(t.rule for t in transitions if t.kind != "resolve")

        async def all_counted(tenant=tenant, fired=fired):
            return await counted(world, tenant) == fired

        await until(all_counted)
        rows = await world.rows(tenant, "select owner, key, payload from rule_state")
        assert not [row for row in rows if row["owner"] == REFRESHES_OWNER]
        stored = {(row["owner"], row["key"]): row["payload"] for row in rows if row["owner"] != SOURCE_OWNER}
        assert stored == {
            (row.owner, row.key): row.payload for row in engine.dump() if row.owner != SOURCE_OWNER
        }


FAILING = """
create sequence shared.failures;
grant usage on sequence shared.failures to tlsy_rules_engine;
create function shared.fail() returns trigger language plpgsql as $$
begin
    if nextval('shared.failures') <= 2 then
        raise exception using errcode = '40001', message = 'not yet';
    end if;
    return null;
end $$;
"""
WHEN = {
    "while it is written": "create trigger fail after insert on shared.incidents",
    "at its commit": "create constraint trigger fail after insert on shared.incidents initially deferred",
}


@pytest.mark.usefixtures("replica")
@pytest.mark.parametrize("trigger", WHEN.values(), ids=WHEN.keys())
async def test_a_transaction_that_failed_left_nothing_in_memory(world, tenant, trigger):
    await world.publish(tenant, window=COUNT, incident={"severity": "error", "summary": "{aggregate}"})
    owner = await world.installation.connect("tlsy_migrator", world.installation.common)
    await owner.execute(f"{FAILING}; {trigger} for each row execute function shared.fail()")
    for _ in range(3):
        await world.send(accepted(tenant, event()))
    assert (await world.incident(tenant)).summary == "3"
    assert await owner.fetchval("select last_value from shared.failures") == 3


async def test_absence_is_noticed_after_a_restart_without_another_event(world, tenant):
    await world.replica()
    await world.publish(tenant, when=None, absence={"after_s": 30})
    await world.send(accepted(tenant, event()))

    async def stored():
        return await world.rows(tenant, "select 1 from rule_state where owner <> 'source'")

    await until(stored)
    # Else the rule's change is told to the new replica, and wakes it.
    await world.all_told(tenant)
    await world.replica_alone()
    assert await world.incidents(tenant) == []

    async def opened():
        world.clock.ahead_s += 1
        return await world.incidents(tenant)

    assert [incident.state for incident in await until(opened)] == [pb.INCIDENT_STATE_OPEN]
    assert world.clock.ahead_s > 50


async def test_a_held_condition_opens_when_its_source_falls_silent(world, tenant):
    await world.replica()
    await world.publish(tenant, for_s=10)
    await world.send(accepted(tenant, event()))

    async def opened():
        world.clock.ahead_s += 1
        return await world.incidents(tenant)

    assert len(await until(opened)) == 1
    assert world.clock.ahead_s > 60


@pytest.mark.usefixtures("replica")
async def test_a_roll_back_is_in_force_everywhere_within_a_second_also_without_an_event(world, tenant):
    alone = await world.shared_out()
    await world.replica()
    await world.shared_out(after=alone)
    taken_s = []
    for number in range(3):
        await world.publish(tenant, f"r{number}", when={"gt": [{"field": "value"}, 1000]})
        await world.publish(tenant, f"r{number}")
        await world.send(accepted(tenant, event()))
        opened = await world.incident(tenant)
        # The relays are at work, not still comparing their logs with a new broker.
        await world.all_told(tenant)
        began = asyncio.get_running_loop().time()
        request = pb.RollbackRuleRequest(name=opened.rule)
        await world.stub(tenant, replica=1).RollbackRule(request)
        await world.incident(tenant, pb.INCIDENT_STATE_RESOLVED, count=number + 1)
        taken_s.append(asyncio.get_running_loop().time() - began)
    # The best of some: on a busy machine the clock on the wall measures the others.
    assert min(taken_s) <= 1.0
    await world.send(accepted(tenant, event(96)), accepted(tenant, event(2000)))
    again = await world.incident(tenant, count=3)
    assert {incident.values["value"] for incident in again} == {2000}


async def test_what_was_superseded_while_nobody_looked_is_resolved_at_the_next_start(world, tenant):
    await world.replica()
    await world.publish(tenant)
    await world.send(accepted(tenant, event()))
    opened = await world.incident(tenant)
    await world.replica_alone(role="api")
    await world.stub(tenant).DisableRule(pb.DisableRuleRequest(name=opened.rule))
    assert len(await world.incidents(tenant, states=[pb.INCIDENT_STATE_OPEN])) == 1
    await world.replica()
    resolved = await world.incident(tenant, pb.INCIDENT_STATE_RESOLVED)
    assert resolved.resolve_time.ToMicroseconds() >= opened.open_time.ToMicroseconds()
    stub = world.stub(tenant)
    timeline = (await stub.GetIncident(pb.GetIncidentRequest(name=resolved.name))).timeline
    assert [(entry.kind, entry.note) for entry in timeline] == [("opened", ""), ("resolved", "superseded")]
    assert len(await world.published(tenant, INCIDENT_CHANGED)) == 2


async def test_a_tenant_whose_database_is_away_has_its_events_judged_later_and_in_order(world):
    away, here = await world.tenant(IsolationMode.DEDICATED), await world.tenant()
    await world.replica()
    for tenant in (away, here):
        await world.publish(tenant, window=COUNT)
        await world.send(accepted(tenant, event()))
    name = away.placement.database
    administrator = await world.installation.connect(None, world.installation.control)
    await administrator.execute(f"alter database {name} with allow_connections false")
    await administrator.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name
    )
    for tenant in (away, here):
        await world.send(accepted(tenant, event()), accepted(tenant, event()))
    await world.incident(here)
    await administrator.execute(f"alter database {name} with allow_connections true")
    await world.incident(away)


@pytest.mark.usefixtures("replica")
async def test_an_event_that_meets_a_change_of_rules_is_judged_by_the_rules_after_it(world, tenant):
    await world.publish(tenant, "going")
    await world.publish(tenant, "staying")
    await world.send(accepted(tenant, event(1)))
    await until(lambda: world.rows(tenant, "select 1 from rule_state"))
    waiting = await world.installation.connect(None, world.installation.common)

    async def blocked():
        return await waiting.fetchval(
            "select true from pg_stat_activity where datname = current_database()"
            " and wait_event_type = 'Lock' and query like '%rule_set%' limit 1"
        )

    tenancy = world.installation.tenancy("rules_engine")
    async with tenancy.transaction(tenant.context, write=True) as tx:
        await tx.execute("update rule_set set version = version + 1")
        await tx.execute("update rules set enabled = false where rule_id = 'going'")
        await world.send(accepted(tenant, event()))
        await until(blocked)
    assert (await world.incident(tenant)).rule.endswith("/staying")
