from __future__ import annotations

import pytest

from tlsy.contracts.events import INCIDENT_CHANGED, audit_recorded
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb

from .world import accepted, event, refused

pytestmark = pytest.mark.usefixtures("replica")


@pytest.fixture
async def opened(world, tenant):
    await world.publish(tenant)
    await world.send(accepted(tenant, event()))
    return await world.incident(tenant)


async def test_acknowledging_and_resolving_are_in_the_timeline_with_who_did_it(world, tenant, opened):
    stub, who = world.stub(tenant), f"tenants/{tenant.slug}/apiKeys/{tenant.tenant_id}"
    taken = await stub.AcknowledgeIncident(pb.AcknowledgeIncidentRequest(name=opened.name, note="mine"))
    assert (taken.state, taken.acknowledged_by) == (pb.INCIDENT_STATE_ACKNOWLEDGED, who)
    done = await stub.ResolveIncident(pb.ResolveIncidentRequest(name=opened.name, etag=taken.etag))
    assert (done.state, done.resolved_by) == (pb.INCIDENT_STATE_RESOLVED, who)
    timeline = (await stub.GetIncident(pb.GetIncidentRequest(name=opened.name))).timeline
    assert [(entry.kind, entry.principal, entry.note) for entry in timeline] == [
        ("opened", "rule", ""),
        ("acknowledged", who, "mine"),
        ("resolved", who, ""),
    ]
    assert len(await world.published(tenant, INCIDENT_CHANGED)) == 3
    assert len(await world.published(tenant, audit_recorded("rules-engine"))) == 3


async def test_a_step_that_the_incident_is_past_is_refused(world, tenant, opened):
    stub = world.stub(tenant)
    acknowledge = pb.AcknowledgeIncidentRequest(name=opened.name)
    await stub.AcknowledgeIncident(acknowledge)
    assert (await refused(stub.AcknowledgeIncident(acknowledge))).reason == "ALREADY_ACKNOWLEDGED"
    stale = pb.ResolveIncidentRequest(name=opened.name, etag=opened.etag)
    assert (await refused(stub.ResolveIncident(stale))).reason == "ETAG_MISMATCH"
    await stub.ResolveIncident(pb.ResolveIncidentRequest(name=opened.name))
    again = pb.ResolveIncidentRequest(name=opened.name)
    assert (await refused(stub.ResolveIncident(again))).reason == "ALREADY_RESOLVED"


async def test_an_incident_that_an_operator_resolved_opens_again_when_its_rule_fires(world, tenant, opened):
    await world.stub(tenant).ResolveIncident(pb.ResolveIncidentRequest(name=opened.name))
    await world.send(accepted(tenant, event(97)))
    again = await world.incident(tenant)
    assert (again.name, again.values["value"], again.acknowledged_by) == (opened.name, 97, "")


async def test_after_the_time_for_reopening_another_incident_opens(world, tenant):
    await world.replica_alone(reopen_within_s=0)
    await world.publish(tenant)
    await world.send(accepted(tenant, event()))
    opened = await world.incident(tenant)
    await world.send(accepted(tenant, event(1), event(96)))
    resolved = await world.incident(tenant, pb.INCIDENT_STATE_RESOLVED)
    again = await world.incident(tenant)
    assert (resolved.name, again.values["value"]) == (opened.name, 96)
    assert again.name != opened.name


async def test_groups_that_share_a_dedup_key_share_an_incident_until_the_last_is_well(world, tenant):
    spec = {"severity": "error", "summary": "site {site}", "dedup_key": ["site"]}
    await world.publish(tenant, incident=spec, group_by=["site"])
    sick = [event(site="north", source=source) for source in ("agent/a", "agent/b")]
    await world.send(accepted(tenant, *sick))
    one = await world.incident(tenant)
    assert (one.site, one.occurrence_count) == ("north", 2)
    await world.send(accepted(tenant, event(1, site="north", source="agent/a"), event(site="south")))
    assert len(await world.incident(tenant, count=2)) == 2
    await world.send(accepted(tenant, event(1, site="north", source="agent/b")))
    assert (await world.incident(tenant, pb.INCIDENT_STATE_RESOLVED)).name == one.name


async def test_resolving_a_shared_incident_clears_all_its_groups(world, tenant):
    spec = {"severity": "error", "summary": "x", "dedup_key": ["site"]}
    await world.publish(tenant, incident=spec, group_by=["site"])
    sick = [event(site="north", source=source) for source in ("agent/a", "agent/b")]
    await world.send(accepted(tenant, *sick))
    one = await world.incident(tenant)
    await world.stub(tenant).ResolveIncident(pb.ResolveIncidentRequest(name=one.name))
    await world.send(accepted(tenant, event(site="north", source="agent/b")))
    again = await world.incident(tenant)
    assert again.name == one.name
    await world.send(accepted(tenant, event(1, site="north", source="agent/b")))
    await world.incident(tenant, pb.INCIDENT_STATE_RESOLVED)


async def test_incidents_are_listed_newest_first_by_state_rule_and_site(world, tenant):
    stub, parent = world.stub(tenant), f"tenants/{tenant.slug}"
    await world.publish(tenant, group_by=["site"])
    for number in range(3):
        await world.send(accepted(tenant, event(source=f"agent/{number}", site=f"s{number}")))
        await world.incident(tenant, count=number + 1)
    page = await stub.ListIncidents(pb.ListIncidentsRequest(parent=parent, page_size=2))
    rest = await stub.ListIncidents(
        pb.ListIncidentsRequest(parent=parent, page_size=2, page_token=page.next_page_token)
    )
    found = [*page.incidents, *rest.incidents]
    assert [each.site for each in found] == ["s2", "s1", "s0"]
    assert [each.site for each in await world.incidents(tenant, site="s1")] == ["s1"]
    assert await world.incidents(tenant, rule=f"{parent}/rules/other") == []
    assert await world.incidents(tenant, states=[pb.INCIDENT_STATE_RESOLVED]) == []


async def test_an_incident_of_another_tenant_cannot_be_named(world, other, opened):
    foreign = opened.name.replace(opened.name.split("/")[1], other.slug)
    stub = world.stub(other)
    assert (await refused(stub.GetIncident(pb.GetIncidentRequest(name=opened.name)))).reason == "CROSS_TENANT"
    assert (await refused(stub.GetIncident(pb.GetIncidentRequest(name=foreign)))).reason == (
        "INCIDENT_NOT_FOUND"
    )


async def test_a_state_that_there_is_not_is_refused(world, tenant):
    error = await refused(world.incidents(tenant, states=[pb.INCIDENT_STATE_UNSPECIFIED]))
    assert [violation.reason for violation in error.violations] == ["STATE_UNKNOWN"]


async def test_what_is_superseded_was_over_then_and_goes_on_when_it_fires_again(world, tenant, opened):
    stub = world.stub(tenant)
    await stub.DisableRule(pb.DisableRuleRequest(name=opened.rule))
    resolved = await world.incident(tenant, pb.INCIDENT_STATE_RESOLVED)
    assert resolved.resolve_time.ToMicroseconds() >= resolved.open_time.ToMicroseconds()
    await world.publish(tenant)
    await world.send(accepted(tenant, event()))
    assert (await world.incident(tenant)).name == opened.name


async def test_no_text_with_nul_is_looked_for(tenant, stub):
    parent = f"tenants/{tenant.slug}"
    for call in (
        stub.ListIncidents(pb.ListIncidentsRequest(parent=parent, site="a\0b")),
        stub.ListObservedFields(pb.ListObservedFieldsRequest(parent=parent, event_type="\0")),
    ):
        assert [found.reason for found in (await refused(call)).violations] == ["FILTER_INVALID"]


async def test_no_note_with_nul_is_kept(world, tenant, opened):
    stub = world.stub(tenant)
    for call in (
        stub.AcknowledgeIncident(pb.AcknowledgeIncidentRequest(name=opened.name, note="a\0b")),
        stub.ResolveIncident(pb.ResolveIncidentRequest(name=opened.name, note="\0")),
    ):
        assert [found.reason for found in (await refused(call)).violations] == ["NOTE_INVALID"]
