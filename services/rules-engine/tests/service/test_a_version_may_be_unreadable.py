"""A version that another release wrote, or that a limit lowered since forbids."""

from __future__ import annotations

import pytest

from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb
from tlsy.rpc.errors import FailedPrecondition

from .world import accepted, document, event, refused

HOT = {"when": {"gt": [{"field": "value"}, 90]}}
WARM = {"when": {"gt": [{"field": "value"}, 50]}}
COLD = {"when": {"gt": [{"field": "value"}, 10]}}
UNREADABLE = {
    "written by a newer release": ('"tlsy.rule/1"', '"tlsy.rule/2"'),
    "longer than a limit lowered since": ('"lateness_s":30', '"lateness_s":3000'),
    "no JSON": ("{", "{{"),
}

pytestmark = pytest.mark.usefixtures("replica")


async def unreadable(world, tenant, rule, change=UNREADABLE["written by a newer release"]):
    """The rule's live version becomes one that this release cannot read; its hash."""
    owner = await world.installation.connect("tlsy_migrator", tenant.placement)
    version = rule.live_version.rpartition("/")[2]
    sql = "update shared.rule_versions set document = replace(document, $2, $3) where version_id = $1"
    assert await owner.execute(sql, version, *change) == "UPDATE 1"
    return version


@pytest.mark.parametrize("change", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_a_difference_with_it_is_refused_and_names_it(world, tenant, stub, change):
    old, new = await world.publish(tenant, **HOT), await world.publish(tenant, **WARM)
    version = await unreadable(world, tenant, old, change)
    for pair in ((old, new), (new, old)):
        request = pb.DiffRuleVersionsRequest(
            old_version=pair[0].live_version, new_version=pair[1].live_version
        )
        error = await refused(stub.DiffRuleVersions(request))
        assert (type(error), error.reason) == (FailedPrecondition, "VERSION_UNREADABLE")
        assert error.metadata == {"rule": "hot", "version": version}
        assert version in error.message


async def test_a_roll_back_to_it_is_refused_and_changes_nothing(world, tenant, stub):
    old, live = await world.publish(tenant, **HOT), await world.publish(tenant, **WARM)
    version = await unreadable(world, tenant, old)
    for asked in ("", version[:8]):
        error = await refused(stub.RollbackRule(pb.RollbackRuleRequest(name=live.name, version_id=asked)))
        assert (type(error), error.reason) == (FailedPrecondition, "VERSION_UNREADABLE")
        assert error.metadata["version"] == version
    assert await stub.GetRule(pb.GetRuleRequest(name=live.name)) == live


async def test_the_other_versions_are_listed_compared_and_rolled_back_to(world, tenant, stub):
    first, second = await world.publish(tenant, **HOT), await world.publish(tenant, **WARM)
    live = await world.publish(tenant, **COLD)
    await unreadable(world, tenant, live)
    listed = await stub.ListRuleVersions(pb.ListRuleVersionsRequest(parent=live.name))
    assert [each.name for each in listed.rule_versions] == [
        each.live_version for each in (live, second, first)
    ]
    (rule,) = (await stub.ListRules(pb.ListRulesRequest(parent=f"tenants/{tenant.slug}"))).rules
    assert "tlsy.rule/2" in rule.document
    request = pb.DiffRuleVersionsRequest(old_version=first.live_version, new_version=second.live_version)
    assert [each.pointer for each in (await stub.DiffRuleVersions(request)).changes] == ["/when/gt/1"]
    back = await stub.RollbackRule(pb.RollbackRuleRequest(name=live.name))
    assert back.live_version == second.live_version


async def test_a_live_one_is_not_in_force_and_stops_nobody(world, tenant, other, stub):
    """Neither the tenant's other rules, nor who publishes one for the same events, nor another tenant."""
    hot = await world.publish(tenant)
    await unreadable(world, tenant, hot)
    warm = await world.publish(tenant, "warm", **WARM)
    await world.publish(other)
    await world.replica_alone()
    await world.send(accepted(tenant, event()), accepted(other, event()))
    await world.incident(other)
    assert (await world.incident(tenant)).rule == warm.name
    request = pb.PublishRuleRequest(name=hot.name, document=document(**COLD))
    await world.stub(tenant).PublishRule(request)
    await world.send(accepted(tenant, event()))
    assert {each.rule for each in await world.incident(tenant, count=2)} == {warm.name, hot.name}
