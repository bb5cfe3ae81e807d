from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from time import thread_time

import pytest

from tlsy.contracts.audit_log.events.v1.events_pb2 import AuditRecorded
from tlsy.contracts.billing.events.v1.events_pb2 import UsageRecorded
from tlsy.contracts.events import INCIDENT_CHANGED, audit_recorded, usage_recorded
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb
from tlsy.eventlog.kafka import partition_of
from tlsy.rules_engine.domain.rows import pack

from .world import accepted, event, now_us, until

ITSELF = "services/rules-engine"
TEXT = {"field": "data.t", "type": "string"}


async def neighbours(world):
    """Two tenants in one partition, and a replica that knows them."""
    one = await world.tenant()
    place = partition_of(one.tenant_id.hex.encode(), 4)
    while partition_of((other := await world.tenant()).tenant_id.hex.encode(), 4) != place:
        pass
    await world.replica()
    return one, other


async def own_doings(world, tenant):
    """What the tenant's audit log is told of the service's own doing."""
    told = await world.published(tenant, audit_recorded("rules-engine"))
    records = [AuditRecorded.FromString(data) for data in told]
    return [record for record in records if record.principal == ITSELF]


@contextlib.asynccontextmanager
async def longest_work():
    """The longest that others waited, in seconds that this thread worked. No garbage is collected."""
    worst = [0.0]

    async def watch():
        while True:
            began = thread_time()
            await asyncio.sleep(0.001)
            worst[0] = max(worst[0], thread_time() - began)

    task = asyncio.create_task(watch())
    gc.disable()
    try:
        yield worst
    finally:
        gc.enable()
        task.cancel()


@pytest.mark.parametrize(
    "spoilt",
    [b"\xc1", pack([False, now_us(), now_us(), None, ["x"], now_us() + 10**10, {}])],
    ids=["state that cannot be loaded", "a sample that cannot be judged"],
)
async def test_a_rule_that_cannot_be_judged_is_halted_and_the_others_go_on(world, spoilt):
    one, other = await neighbours(world)
    held = await world.publish(one, "held", for_s=3_600)
    await world.publish(one, "hot", when={"gt": [{"field": "value"}, 96]})
    await world.publish(other)
    await world.send(accepted(one, event()))
    await until(lambda: world.rows(one, "select 1 from rule_state where owner <> 'source'"))
    owner = await world.installation.connect("tlsy_migrator", one.placement)
    sql = "update shared.rule_state set payload = $2 where tenant_id = $1 and owner <> 'source'"
    await owner.execute(sql, one.tenant_id, spoilt)
    sql = "update shared.rule_set set stamp = gen_random_uuid() where tenant_id = $1"
    await owner.execute(sql, one.tenant_id)
    await world.send(accepted(one, event(97)), accepted(other, event()))
    await world.incident(other)
    assert (await world.incident(one)).rule.endswith("/hot")
    stub = world.stub(one)
    rules = (await stub.ListRules(pb.ListRulesRequest(parent=f"tenants/{one.slug}"))).rules
    assert {rule.name.rpartition("/")[2]: rule.halt_reason for rule in rules} == {
        "held": "JUDGING_FAILED",
        "hot": "",
    }
    assert world.counted("tlsy_rules_halted_total") == 1
    dead = await world.inspector.end_offsets("tlsy.ingestion.rules-engine.dlq")
    assert sum(dead.values()) == 0
    (halt,) = await own_doings(world, one)
    assert (halt.method, halt.resource) == (f"{ITSELF}/halt-rule", held.name)
    assert dict(halt.details) == {"reason": "JUDGING_FAILED", "version": held.live_version}
    again = await world.publish(one, "held", for_s=3_600)
    assert (again.live_version, again.halt_reason) == (held.live_version, "")


async def test_a_value_that_flaps_is_judged_whole_and_told_in_few_words(world):
    tenant = await world.tenant()
    await world.replica()
    for number in range(10):
        await world.publish(tenant, f"r{number}")
    began = now_us()
    flapping = [event(95.0 if n % 2 else 1.0, time_us=began + n, id=str(n)) for n in range(5_000)]
    async with longest_work() as worst:
        await world.send(accepted(tenant, *flapping))
        found = await world.incident(tenant, count=10)
    assert worst[0] < 1.5
    assert [incident.occurrence_count for incident in found] == [2_500] * 10
    assert len(await world.published(tenant, INCIDENT_CHANGED)) <= 10 * 33
    timeline = (await world.stub(tenant).GetIncident(pb.GetIncidentRequest(name=found[0].name))).timeline
    assert timeline[-1].note == "the last of 4967 changes in short order"
    facts = await world.published(tenant, usage_recorded("rules-engine"))
    counted = [UsageRecorded.FromString(fact) for fact in facts]
    assert sum(fact.quantity for fact in counted if fact.meter == "rules.evaluated") == 5_000


async def test_the_dearest_rules_leave_others_their_turn(world):
    tenant, other = await neighbours(world)
    dear = [{"not": {"matches": [TEXT, f"*a{'a' * n}b*"]}} for n in range(7)]
    for number in range(10):
        await world.publish(tenant, f"r{number}", when={"and": dear}, for_s=number + 1)
    await world.publish(other)
    data = json.dumps({"t": "a" * 1_000}).encode()
    async with longest_work() as worst:
        await world.send(accepted(tenant, *(event(id=str(n), data=data) for n in range(400))))
        await world.send(accepted(other, event()))
        await world.incident(other)
        await until(lambda: world.rows(tenant, "select 1 from rule_state where owner <> 'source'"))
    assert worst[0] < 0.5


STATE = """
insert into shared.rule_state
select $1, $2, decode(md5(n::text), 'hex'), jsonb_build_array('agent/' || n % 100, n::text)::text, $3
from generate_series(1, 10000) n
"""
SOURCES = """
insert into shared.rule_state
select $1, 'source', decode(md5(n::text), 'hex'), jsonb_build_array('agent/' || n)::text, $2
from generate_series(0, 99) n
"""


async def test_much_state_leaves_others_their_turn_when_it_is_loaded(world):
    tenant = await world.tenant()
    await world.replica()
    rules = [await world.publish(tenant, f"r{number}", for_s=3_600) for number in range(4)]
    owner, at_us = await world.installation.connect("tlsy_migrator", tenant.placement), now_us()
    pending = pack([False, at_us, at_us, None, [at_us], at_us + 3_600_000_000, {}])
    await owner.execute(SOURCES, tenant.tenant_id, pack((at_us, [], at_us)))
    for rule in rules:
        await owner.execute(STATE, tenant.tenant_id, rule.live_version.rpartition("/")[2], pending)
    await owner.execute("update shared.rule_set set stamp = gen_random_uuid()")
    async with longest_work() as worst:
        await world.send(accepted(tenant, event(source="agent/new")))
        await until(lambda: world.rows(tenant, "select from rule_state where key like '%agent/new%'"))
    assert worst[0] < 0.1


async def test_an_event_that_ends_much_leaves_others_their_turn(world):
    tenant = await world.tenant()
    await world.replica()
    rules = [await world.publish(tenant, f"r{number}", resolve={"after_s": 60}) for number in range(2)]
    owner = await world.installation.connect("tlsy_migrator", tenant.placement)
    at_us = now_us() - 3_600_000_000
    firing = pack([True, at_us, at_us, None, [], at_us + 60_000_000, {}])
    await owner.execute(SOURCES, tenant.tenant_id, pack((at_us, [], at_us)))
    for rule in rules:
        one_source = STATE.replace("n % 100", "0")
        await owner.execute(one_source, tenant.tenant_id, rule.live_version.rpartition("/")[2], firing)
    await owner.execute("update shared.rule_set set stamp = gen_random_uuid()")
    async with longest_work() as worst:
        ending = event(1, source="agent/0")
        await world.send(accepted(tenant, ending, event(1, source="agent/new")))
        await until(lambda: world.rows(tenant, "select from rule_state where key like '%agent/new%'"))
    assert worst[0] < 0.1


async def test_whose_groups_are_beyond_a_limit_is_logged_once(world, log_lines):
    tenant = await world.tenant()
    await world.replica()
    rule = await world.publish(tenant, for_s=3_600)
    owner, at_us = await world.installation.connect("tlsy_migrator", tenant.placement), now_us()
    pending = pack([False, at_us, at_us, None, [at_us], at_us + 3_600_000_000, {}])
    await owner.execute(SOURCES, tenant.tenant_id, pack((at_us, [], at_us)))
    await owner.execute(STATE, tenant.tenant_id, rule.live_version.rpartition("/")[2], pending)
    await owner.execute("update shared.rule_set set stamp = gen_random_uuid()")
    for name in ("agent/one", "agent/two"):
        await world.send(accepted(tenant, event(source=name)))
        await until(lambda name=name: world.rows(tenant, f"select from rule_state where key like '%{name}%'"))
    (told,) = log_lines.of("groups beyond a limit are not tracked")
    assert (told["tenant"], told["groups"]) == (str(tenant.tenant_id), 10_000)
