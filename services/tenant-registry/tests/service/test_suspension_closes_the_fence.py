from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from tlsy.contracts.options.v1 import options_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as pb
from tlsy.runtime.ids import TenantId
from tlsy.tenancy.context import IsolationMode, Placement, TenantContext
from tlsy.tenancy.errors import NotWritable, StaleEpoch

from .conftest import DESCRIPTOR, unique_slug

pytestmark = pytest.mark.asyncio(loop_scope="session")
# As French has it: with a blank that does not break.
REASON = "impayé\u00a0: deux rappels"


def context(tenant, epoch=None):
    place = tenant.placement
    return TenantContext(
        tenant_id=TenantId(UUID(tenant.tenant_id)),
        slug=tenant.name.removeprefix("tenants/"),
        epoch=epoch or tenant.epoch,
        placement=Placement(place.cluster, place.database, place.schema),
        mode=IsolationMode(tenant_pb2.IsolationMode.Name(tenant.isolation_mode)[15:]),
    )


async def suspend(suite, tenant, **fields):
    request = pb.SuspendTenantRequest(name=tenant.name, reason=REASON, **fields)
    return await suite.stub().SuspendTenant(request)


async def enter(suite, tenant, *, write, epoch=None):
    tenancy = suite.installation.tenancy("tenant_registry")
    async with tenancy.transaction(context(tenant, epoch), write=write) as tx:
        assert await tx.fetchval("select 1") == 1


@pytest.mark.parametrize("mode", ["SHARED", "SCHEMA", "DEDICATED"])
async def test_when_suspend_answers_no_writer_is_let_in_and_readers_are(suite, mode):
    tenant = await suite.tenant(isolation_mode=f"ISOLATION_MODE_{mode}")
    await enter(suite, tenant, write=True)
    suspended = await suspend(suite, tenant)
    assert (suspended.state, suspended.epoch) == (tenant_pb2.TENANT_STATE_SUSPENDED, tenant.epoch + 1)
    await enter(suite, suspended, write=False)
    with pytest.raises(NotWritable):
        await enter(suite, suspended, write=True)
    with pytest.raises(StaleEpoch):
        await enter(suite, tenant, write=True)


async def test_suspend_waits_for_the_transactions_that_are_inside(suite):
    tenant = await suite.tenant()
    async with suite.installation.tenancy("tenant_registry").transaction(context(tenant), write=True):
        waiting = asyncio.create_task(suspend(suite, tenant))
        done, _ = await asyncio.wait({waiting}, timeout=0.5)
        assert not done
    assert (await waiting).state == tenant_pb2.TENANT_STATE_SUSPENDED


async def test_a_parent_s_suspension_reaches_all_below_and_ends_with_it(suite):
    parent = await suite.tenant(tier="TIER_BUSINESS")
    child = await suite.tenant(parent=parent.name)
    grandchild = await suite.tenant(parent=child.name)
    await suspend(suite, parent)
    seen = [await suite.get(each) for each in (child, grandchild)]
    assert {(each.state, each.state_reason, each.epoch) for each in seen} == {
        (tenant_pb2.TENANT_STATE_SUSPENDED, "PARENT_SUSPENDED", 2)
    }
    with pytest.raises(NotWritable):
        await enter(suite, grandchild, write=True, epoch=2)
    await suite.stub().ResumeTenant(pb.ResumeTenantRequest(name=parent.name))
    await enter(suite, grandchild, write=True, epoch=3)


async def test_what_was_suspended_itself_stays_suspended_when_its_parent_resumes(suite):
    parent = await suite.tenant(tier="TIER_BUSINESS")
    child = await suite.tenant(parent=parent.name)
    await suspend(suite, child)
    await suspend(suite, parent)
    await suite.stub().ResumeTenant(pb.ResumeTenantRequest(name=parent.name))
    assert (await suite.get(child)).state_reason == REASON


async def test_a_stale_etag_is_refused(suite, refused):
    tenant = await suite.tenant()
    await suspend(suite, tenant, etag=tenant.etag)
    error = await refused(suspend(suite, tenant, etag=tenant.etag))
    assert (error.reason, error.code.name) == ("ETAG_MISMATCH", "ABORTED")


async def test_the_platform_s_own_tenant_is_neither_suspended_nor_deleted(suite, refused):
    platform = tenant_pb2.Tenant(name="tenants/platform")
    suspended = await refused(suspend(suite, platform))
    deleted = await refused(suite.stub().DeleteTenant(pb.DeleteTenantRequest(name=platform.name)))
    assert suspended.reason == deleted.reason == "PLATFORM_TENANT"


async def test_a_suspended_tenant_changes_nothing_in_the_catalogue_either(suite, refused):
    tenant = await suite.tenant(tier="TIER_BUSINESS")
    await suspend(suite, tenant)
    own = suite.stub(suite.token(tenant))
    asked = tenant_pb2.Tenant(name=tenant.name, display_name="Other", host_names=["own.example.org"])
    below = tenant_pb2.Tenant(display_name="Below", country="countries/fr", parent=tenant.name)
    mask = FieldMask(paths=["display_name", "host_names"])
    calls = {
        "CreateTenant": pb.CreateTenantRequest(tenant_slug=unique_slug(), tenant=below),
        "UpdateTenant": pb.UpdateTenantRequest(tenant=asked, update_mask=mask),
    }
    assert set(calls) == {method.name for method in DESCRIPTOR.methods if changes_by_a_tenant(method)}
    for name, request in calls.items():
        error = await refused(getattr(own, name)(request))
        assert (error.reason, error.code.name) == ("NOT_WRITABLE", "FAILED_PRECONDITION"), name
    await suite.stub().UpdateTenant(calls["UpdateTenant"])
    assert (await suite.get(tenant)).display_name == "Other"


def changes_by_a_tenant(method):
    rules = method.GetOptions().Extensions[options_pb2.rules]
    return rules.scope == options_pb2.SCOPE_TENANT_OR_PLATFORM and rules.audit != options_pb2.AUDIT_NONE
