from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from tlsy.contracts.audit_log.events.v1.events_pb2 import AuditRecorded
from tlsy.contracts.events import RULE_CHANGED, audit_recorded
from tlsy.contracts.rules_engine.events.v1.events_pb2 import RuleChanged
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb
from tlsy.rpc.errors import FailedPrecondition

from .world import document, refused

HOT = {"when": {"gt": [{"field": "value"}, 90]}}
WARM = {"when": {"gt": [{"field": "value"}, 50]}}

pytestmark = pytest.mark.usefixtures("replica")


def name_of(tenant, rule="hot"):
    return f"tenants/{tenant.slug}/rules/{rule}"


async def test_the_same_document_again_is_the_same_version_and_tells_nobody(world, tenant):
    first = await world.publish(tenant)
    again = await world.publish(tenant)
    assert again == first
    assert len(await world.published(tenant, RULE_CHANGED)) == 1


async def test_every_change_is_audited_and_told_with_a_growing_version_of_the_set(world, tenant, stub):
    await world.publish(tenant)
    await world.publish(tenant, **WARM)
    await stub.DisableRule(pb.DisableRuleRequest(name=name_of(tenant)))
    told = [RuleChanged.FromString(data) for data in await world.published(tenant, RULE_CHANGED)]
    assert [(each.rule_set_version, each.rule.enabled) for each in told] == [(1, True), (2, True), (3, False)]
    kind = audit_recorded("rules-engine")
    records = [AuditRecorded.FromString(data) for data in await world.published(tenant, kind)]
    assert [record.method.rpartition("/")[2] for record in records] == [
        "PublishRule",
        "PublishRule",
        "DisableRule",
    ]
    assert {record.resource for record in records} == {name_of(tenant)}


async def test_everything_wrong_with_a_document_is_told_at_once(world, tenant, stub):
    wrong = document(when={"gtt": [{"field": "value"}, 1]}, for_s=-1, colour="red")
    error = await refused(stub.PublishRule(pb.PublishRuleRequest(name=name_of(tenant), document=wrong)))
    assert error.reason == "RULE_INVALID"
    assert {(each.field, each.reason) for each in error.violations} == {
        ("/when/gtt", "UNKNOWN_OPERATOR"),
        ("/for_s", "OUT_OF_RANGE"),
        ("/colour", "UNKNOWN_MEMBER"),
    }
    assert await world.rows(tenant, "select 1 from rules") == []


async def test_a_document_is_published_under_its_own_name_only(tenant, stub):
    request = pb.PublishRuleRequest(name=name_of(tenant, "cold"), document=document("hot"))
    error = await refused(stub.PublishRule(request))
    assert [(each.field, each.reason) for each in error.violations] == [("/name", "NAME_MISMATCH")]


async def test_rolling_back_makes_the_version_before_live_and_again_the_one_after(world, tenant, stub):
    first, second = await world.publish(tenant, **HOT), await world.publish(tenant, **WARM)
    request = pb.RollbackRuleRequest(name=name_of(tenant))
    assert (await stub.RollbackRule(request)).document == first.document
    assert (await stub.RollbackRule(request)).document == second.document
    by_hash = first.live_version.rpartition("/")[2][:8]
    back = await stub.RollbackRule(pb.RollbackRuleRequest(name=name_of(tenant), version_id=by_hash))
    assert back.live_version == first.live_version


@pytest.mark.parametrize(
    ("version", "reason"),
    [("", "NO_PREVIOUS_VERSION"), ("0" * 64, "VERSION_NOT_FOUND"), ("abc", "VERSION_INVALID")],
)
async def test_what_was_never_live_is_not_rolled_back_to(world, tenant, stub, version, reason):
    await world.publish(tenant)
    request = pb.RollbackRuleRequest(name=name_of(tenant), version_id=version)
    error = await refused(stub.RollbackRule(request))
    assert reason in {error.reason, *(each.reason for each in error.violations)}


COPY_VERSION = """
    insert into rule_versions (tenant_id, version_id, rule_id, document, author, created_at)
    select tenant_id, md5(n::text), rule_id, document, author, created_at - n * interval '1 s'
    from rule_versions, generate_series(1, 80) as n
"""


async def test_a_page_of_large_documents_ends_where_a_client_would_refuse_it(world, tenant, stub):
    await world.publish(
        tenant, when={"in": [{"field": "subject"}, [f"{number:050}" for number in range(1_000)]]}
    )
    async with world.installation.tenancy("rules_engine").transaction(tenant.context, write=True) as tx:
        await tx.execute(COPY_VERSION)
    request = pb.ListRuleVersionsRequest(parent=name_of(tenant))
    found: list[str] = []
    while not found or request.page_token:
        page = await stub.ListRuleVersions(request)
        assert page.ByteSize() <= 4 * 1024 * 1024
        found += [version.name for version in page.rule_versions]
        request.page_token = page.next_page_token
    assert len(found) == len(set(found)) == 81


async def test_versions_are_listed_newest_first_page_by_page(world, tenant, stub):
    published = [
        (await world.publish(tenant, description=f"number {number}")).live_version for number in range(5)
    ]
    request, found = pb.ListRuleVersionsRequest(parent=name_of(tenant), page_size=2), []
    while True:
        page = await stub.ListRuleVersions(request)
        found += page.rule_versions
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert [version.name for version in found] == published[::-1]
    assert [version.live for version in found] == [True, False, False, False, False]


async def test_a_difference_has_pointers_into_the_canonical_documents(world, tenant, stub):
    old, new = await world.publish(tenant, **HOT), await world.publish(tenant, **WARM, for_s=30)
    request = pb.DiffRuleVersionsRequest(old_version=old.live_version, new_version=new.live_version[:-50])
    changes = {each.pointer: each for each in (await stub.DiffRuleVersions(request)).changes}
    assert (changes["/when/gt/1"].old_value, changes["/when/gt/1"].new_value) == ("90", "50")
    assert changes["/for_s"].new_value == "30"
    assert not changes["/for_s"].HasField("old_value")


async def test_both_versions_that_are_none_are_told(tenant, stub):
    request = pb.DiffRuleVersionsRequest(
        old_version=f"{name_of(tenant)}/versions/x", new_version=f"{name_of(tenant)}/versions/y"
    )
    error = await refused(stub.DiffRuleVersions(request))
    told = [(violation.field, violation.reason) for violation in error.violations]
    assert told == [("old_version", "VERSION_INVALID"), ("new_version", "VERSION_INVALID")]


async def test_a_change_decided_on_an_older_state_is_refused(world, tenant, stub):
    stale = (await world.publish(tenant)).etag
    await world.publish(tenant, **WARM)
    for call in (
        stub.PublishRule(pb.PublishRuleRequest(name=name_of(tenant), document=document(), etag=stale)),
        stub.RollbackRule(pb.RollbackRuleRequest(name=name_of(tenant), etag=stale)),
        stub.DisableRule(pb.DisableRuleRequest(name=name_of(tenant), etag=stale)),
    ):
        assert (await refused(call)).reason == "ETAG_MISMATCH"


async def test_the_entitlement_limits_the_rules_that_are_on(world):
    tenant = await world.tenant(entitlements={"rules": 2})
    await world.replica_alone()
    await world.publish(tenant, "one")
    await world.publish(tenant, "two")
    error = await refused(world.publish(tenant, "three"))
    assert (type(error), error.reason) == (FailedPrecondition, "RULE_LIMIT")
    await world.publish(tenant, "two", **WARM)
    await world.stub(tenant).DisableRule(pb.DisableRuleRequest(name=name_of(tenant, "one")))
    await world.publish(tenant, "three")
    assert (await refused(world.publish(tenant, "one"))).reason == "RULE_LIMIT"


async def test_rules_that_are_off_are_limited_too(world):
    tenant = await world.tenant(entitlements={"rules": 1})
    await world.replica_alone()
    for number in range(10):
        await world.publish(tenant, f"r{number}", enabled=False)
    error = await refused(world.publish(tenant, "more", enabled=False))
    assert (error.reason, error.metadata["limit"]) == ("RULE_NAME_LIMIT", "10")
    assert await world.rows(tenant, "select from rule_versions where rule_id = 'more'") == []
    await world.publish(tenant, "r0", **WARM)


async def test_a_request_sent_twice_at_once_happens_once(world, tenant):
    await world.replica()
    await world.publish(tenant)
    await world.publish(tenant, **WARM)
    request = pb.RollbackRuleRequest(name=name_of(tenant), request_id=str(uuid4()))
    answers = await asyncio.gather(
        *(world.stub(tenant, replica=i % 2).RollbackRule(request) for i in range(4))
    )
    assert len({answer.SerializeToString() for answer in answers}) == 1
    assert len(await world.published(tenant, RULE_CHANGED)) == 3


async def test_rules_are_listed_by_id_and_those_of_others_are_not_there(world, tenant, other, stub):
    await world.publish(other, "alien")
    for name in ("b", "a", "c"):
        await world.publish(tenant, name)
    request = pb.ListRulesRequest(parent=f"tenants/{tenant.slug}", page_size=2)
    page = await stub.ListRules(request)
    rest = await stub.ListRules(
        pb.ListRulesRequest(parent=request.parent, page_size=2, page_token=page.next_page_token)
    )
    assert [rule.name for rule in (*page.rules, *rest.rules)] == [name_of(tenant, n) for n in "abc"]
    assert (await refused(stub.GetRule(pb.GetRuleRequest(name=name_of(tenant, "alien"))))).reason == (
        "RULE_NOT_FOUND"
    )


async def test_only_who_may_write_rules_changes_them(world, tenant):
    request = pb.PublishRuleRequest(name=name_of(tenant), document=document())
    assert (await refused(world.stub(tenant, "viewer").PublishRule(request))).reason == "PERMISSION_MISSING"


async def test_a_rule_has_as_many_versions_as_are_allowed(world, tenant):
    await world.replica_alone(max_versions_per_rule=2)
    await world.publish(tenant, description="one")
    await world.publish(tenant, description="two")
    assert (await refused(world.publish(tenant, description="three"))).reason == "VERSION_LIMIT"
    await world.publish(tenant, description="one")


async def test_a_prefix_of_several_versions_is_refused(world, tenant, stub):
    await world.publish(tenant)
    owner = await world.installation.connect("tlsy_migrator", tenant.placement)
    await owner.execute(
        "insert into shared.rule_versions select tenant_id, 'abcdef00' || n, rule_id, document, author, now()"
        " from shared.rule_versions, generate_series(1, 2) n"
    )
    request = pb.RollbackRuleRequest(name=name_of(tenant), version_id="abcdef00")
    assert (await refused(stub.RollbackRule(request))).reason == "VERSION_AMBIGUOUS"


async def test_rules_that_cost_too_much_together_are_refused(world, tenant, stub):
    text = {"field": "data.t", "type": "string"}
    await world.publish(tenant, when={"matches": [text, "*?b*"]})
    owner = await world.installation.connect("tlsy_migrator", tenant.placement)
    for copied, column in (("rule_versions", "version_id"), ("rules", "rule_id")):
        await owner.execute(
            f"insert into shared.{copied} select (jsonb_populate_record(r, jsonb_build_object("
            f"'{column}', r.{column} || n, 'live_version', to_jsonb(r)->>'live_version'))).*"
            f" from shared.{copied} r, generate_series(1, 80) n"
        )
    again = document("warm", when={"matches": [text, "*?c*"]})
    error = await refused(
        stub.PublishRule(pb.PublishRuleRequest(name=name_of(tenant, "warm"), document=again))
    )
    assert (type(error), error.reason) == (FailedPrecondition, "RULE_COST_LIMIT")
    assert await world.rows(tenant, "select 1 from rules where rule_id = 'warm'") == []


async def test_rules_that_share_many_conditions_go_live_together(world, tenant, stub):
    chain = [{"exists": {"field": f"labels.k{n}"}} for n in range(115)]
    await world.publish(tenant, when={"and": chain})
    await world.publish(tenant, "warm", when={"and": [*chain[1:], {"gt": [{"field": "value"}, 1]}]})
    assert len((await stub.ListRules(pb.ListRulesRequest(parent=f"tenants/{tenant.slug}"))).rules) == 2
