from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from tlsy.contracts.audit_log.events.v1.events_pb2 import AuditRecorded
from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def set_module(suite, tenant, module, enabled):
    name = f"{tenant.name}/modules/{module}"
    return await suite.stub().SetModule(pb.SetModuleRequest(name=name, enabled=enabled))


async def set_entitlement(suite, tenant, key, value=None):
    name = f"{tenant.name}/entitlements/{key}"
    return await suite.stub().SetEntitlement(pb.SetEntitlementRequest(name=name, value=value))


async def modules(suite, tenant):
    listed = await suite.stub().ListModules(pb.ListModulesRequest(parent=tenant.name))
    return {module.name.rpartition("/")[2] for module in listed.modules if module.enabled}


async def entitlements(suite, tenant):
    listed = await suite.stub().ListEntitlements(pb.ListEntitlementsRequest(parent=tenant.name))
    return {each.name.rpartition("/")[2]: each.value for each in listed.entitlements}


async def test_what_reaches_a_tenant_from_above_stands_in_its_own_log(suite):
    parent = await suite.tenant(tier="TIER_BUSINESS")
    child = await suite.tenant(parent=parent.name)
    await suite.stub().SuspendTenant(pb.SuspendTenantRequest(name=parent.name, reason="unpaid"))
    rows = await suite.fetch(
        "select data from tenant_registry.outbox where tenant_id = $1 and type like '%audit%' order by seq",
        child.tenant_id,
    )
    told = [AuditRecorded.FromString(row["data"]) for row in rows]
    by_above = [dict(each.details) for each in told if each.method.endswith("/inherit")]
    assert by_above == [{"cause": "suspended", "state": "SUSPENDED"}]
    assert parent.name not in str(told[-1])


async def test_a_module_off_at_the_parent_is_off_below_and_comes_back(suite):
    parent = await suite.tenant()
    child = await suite.tenant(parent=parent.name)
    before = await modules(suite, child)
    await set_module(suite, parent, "status-page", False)
    assert await modules(suite, child) == before - {"status-page"}
    await set_module(suite, parent, "status-page", True)
    assert await modules(suite, child) == before


@pytest.mark.parametrize(
    ("module", "enabled", "reason"),
    [
        ("supervision", False, "MODULE_REQUIRED"),
        ("telepathy", True, "MODULE_UNKNOWN"),
    ],
)
async def test_a_switch_that_breaks_a_rule_is_refused(suite, refused, module, enabled, reason):
    error = await refused(set_module(suite, await suite.tenant(), module, enabled))
    assert error.reason == reason


async def test_a_child_does_not_switch_on_what_its_parent_lacks(suite, refused):
    parent = await suite.tenant()
    child = await suite.tenant(parent=parent.name)
    error = await refused(set_module(suite, child, "reporting", True))
    assert error.reason == "MODULE_EXCEEDS_PARENT"


async def test_a_lower_limit_at_the_parent_lowers_it_below(suite):
    parent = await suite.tenant()
    child = await suite.tenant(parent=parent.name)
    lowered = await set_entitlement(suite, parent, "rules", 7)
    assert (lowered.value, lowered.default_value, lowered.overridden) == (7, 50, True)
    assert (await entitlements(suite, child))["rules"] == 7
    restored = await set_entitlement(suite, parent, "rules")
    assert (restored.value, restored.overridden) == (50, False)
    assert (await entitlements(suite, child))["rules"] == 50


async def test_a_child_gets_no_more_than_its_parent(suite, refused):
    parent = await suite.tenant()
    child = await suite.tenant(parent=parent.name)
    error = await refused(set_entitlement(suite, child, "rules", 51))
    created = await refused(suite.begin(parent=parent.name, entitlement_overrides={"rules": 51}))
    assert [found.reason for found in error.violations] == ["ENTITLEMENT_EXCEEDS_PARENT"]
    assert [found.reason for found in created.violations] == ["ENTITLEMENT_EXCEEDS_PARENT"]


async def test_a_tenant_is_not_its_own_ancestor(suite, refused):
    error = await refused(suite.begin("ouroboros", parent="tenants/ouroboros"))
    assert "PARENT_CYCLE" in {found.reason for found in error.violations}


async def test_an_update_changes_what_its_mask_names_and_nothing_else(suite, refused):
    tenant = await suite.tenant()
    asked = tenant_pb2.Tenant(name=tenant.name, display_name="Renamed", locale="fr-FR", etag=tenant.etag)
    request = pb.UpdateTenantRequest(tenant=asked, update_mask=FieldMask(paths=["display_name"]))
    changed = await suite.stub().UpdateTenant(request)
    stale = await refused(suite.stub().UpdateTenant(request))
    request.update_mask.paths[:] = ["country"]
    unknown = await refused(suite.stub().UpdateTenant(request))
    assert (changed.display_name, changed.locale) == ("Renamed", tenant.locale)
    assert stale.reason == "ETAG_MISMATCH"
    assert unknown.violations[0].reason == "UPDATE_MASK_UNKNOWN_PATH"
