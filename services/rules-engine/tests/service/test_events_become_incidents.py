from __future__ import annotations

import pytest

from tlsy.contracts.billing.events.v1.events_pb2 import UsageRecorded
from tlsy.contracts.events import INCIDENT_CHANGED, usage_recorded
from tlsy.contracts.rules_engine.events.v1.events_pb2 import IncidentChanged
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb
from tlsy.tenancy.context import IsolationMode

from .world import accepted, event, now_us, until


@pytest.mark.parametrize("mode", list(IsolationMode))
async def test_an_event_opens_an_incident_and_a_later_one_resolves_it_in_every_mode(world, mode):
    tenant = await world.tenant(mode)
    await world.replica()
    rule = await world.publish(tenant)
    began = now_us()
    await world.send(accepted(tenant, event(95.5, time_us=began, subject="cpu", labels={"host": "a"})))
    opened = await world.incident(tenant)
    assert (opened.summary, opened.rule, opened.rule_version) == (
        "agent/a is at 95.5",
        rule.name,
        rule.live_version,
    )
    assert (opened.subject, opened.values["value"]) == ("cpu", 95.5)
    assert opened.open_time.ToMicroseconds() == began
    await world.send(accepted(tenant, event(20, time_us=began + 1, subject="cpu")))
    resolved = await world.incident(tenant, pb.INCIDENT_STATE_RESOLVED)
    assert (resolved.name, resolved.resolved_by) == (opened.name, "rule")
    told = [IncidentChanged.FromString(data) for data in await world.published(tenant, INCIDENT_CHANGED)]
    assert [(each.change, each.incident.name) for each in told] == [
        ("opened", opened.name),
        ("resolved", opened.name),
    ]


async def test_a_tenant_s_events_are_judged_by_its_own_rules_alone(world):
    tenant, other = await world.tenant(), await world.tenant()
    await world.replica()
    await world.publish(tenant)
    await world.send(accepted(other, event()), accepted(tenant, event()))
    await world.incident(tenant)
    assert await world.incidents(other) == []
    assert await world.rows(other, "select 1 from rule_state") == []


async def test_usage_facts_say_what_was_judged_and_opened(world):
    tenant = await world.tenant()
    await world.replica()
    await world.publish(tenant)
    await world.send(accepted(tenant, event(), event(source="agent/b"), event(type="other")))
    await world.incident(tenant, count=2)
    kind = usage_recorded("rules-engine")
    facts = [UsageRecorded.FromString(data) for data in await world.published(tenant, kind)]
    assert {(fact.meter, fact.quantity) for fact in facts} == {
        ("rules.evaluated", 3),
        ("incidents.opened", 2),
    }


async def test_a_delivery_that_comes_twice_counts_once(world):
    tenant = await world.tenant()
    await world.replica()
    await world.publish(tenant, window={"fn": "count", "over_s": 60, "op": "ge", "threshold": 3})
    twice = accepted(tenant, event(), event())
    await world.send(twice, twice, accepted(tenant, event(source="agent/b"), event(source="agent/b")))
    await world.send(accepted(tenant, event(source="agent/b")))
    assert (await world.incident(tenant)).summary.startswith("agent/b")
    assert len(await world.incidents(tenant)) == 1


async def test_with_the_module_off_events_pass_by(world):
    tenant = await world.tenant(modules=frozenset({"supervision"}))
    judged = await world.tenant()
    service = await world.replica()
    await world.publish(judged)
    await world.send(accepted(tenant, event()), accepted(judged, event()))
    await world.incident(judged)
    assert await world.rows(tenant, "select 1 from observed_fields") == []
    assert service.ready()


async def test_firings_again_are_counted_without_being_told(world):
    tenant = await world.tenant()
    await world.replica()
    await world.publish(tenant)
    for _ in range(3):
        await world.send(accepted(tenant, event()))
        await world.incident(tenant)

    async def counted():
        (found,) = await world.incidents(tenant)
        return found if found.occurrence_count == 3 else None

    found = await until(counted)
    assert found.etag == (await world.incident(tenant)).etag
    assert len(await world.published(tenant, INCIDENT_CHANGED)) == 1


async def test_an_unreadable_record_goes_to_the_dead_letters_and_the_others_go_on(world):
    tenant = await world.tenant()
    await world.replica()
    await world.publish(tenant)
    await world.send(accepted(tenant, data=b"\xff\xff\xff"), accepted(tenant, event()))
    await world.incident(tenant)

    async def written():
        return sum((await world.inspector.end_offsets("tlsy.ingestion.rules-engine.dlq")).values()) == 1

    await until(written)


async def test_fields_that_events_have_had_are_listed_and_rules_are_validated_against_them(world):
    tenant = await world.tenant()
    await world.replica()
    await world.send(accepted(tenant, event(labels={"rack": "7"}, data=b'{"fan": {"rpm": 3}, "on": true}')))
    stub, parent = world.stub(tenant), f"tenants/{tenant.slug}"

    async def seen():
        answer = await stub.ListObservedFields(pb.ListObservedFieldsRequest(parent=parent))
        return {field.path: list(field.types) for field in answer.fields}

    fields = await until(seen)
    assert fields["labels.rack"] == ["string"]
    assert fields["data.fan.rpm"] == ["number"]
    assert fields["data.on"] == ["bool"]
    document = (
        b'{"schema": "tlsy.rule/1", "name": "fan", "match": {"type": "room.temperature"},'
        b' "when": {"eq": [{"field": "labels.rak"}, "7"]},'
        b' "incident": {"severity": "error", "summary": "x"}}'
    )
    verdict = await stub.ValidateRule(pb.ValidateRuleRequest(parent=parent, document=document))
    assert [(p.pointer, p.code) for p in verdict.problems] == [("/when/eq/0/field", "UNKNOWN_FIELD")]
    assert verdict.problems[0].hint == 'did you mean "labels.rack"?'
