from __future__ import annotations

import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2

from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as pb

from .conftest import unique_slug

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def family(suite):
    parent = await suite.tenant(tier="TIER_BUSINESS")
    child = await suite.tenant(parent=parent.name)
    return parent, child, await suite.tenant()


async def test_a_tenant_lists_its_line_and_nobody_else(suite, family):
    parent, child, _ = family
    stub = suite.stub(suite.token(parent))
    listed = await stub.ListTenants(pb.ListTenantsRequest())
    assert {each.name for each in listed.tenants} == {parent.name, child.name}
    assert not any(each.HasField("placement") for each in listed.tenants)


async def test_a_tenant_does_not_learn_its_cluster_by_a_filter(suite, family, refused):
    request = pb.ListTenantsRequest(filter=pb.TenantFilter(cluster="clusters/local"))
    error = await refused(suite.stub(suite.token(family[0])).ListTenants(request))
    assert [(found.field, found.reason) for found in error.violations] == [
        ("filter.cluster", "FILTER_OF_PROVIDER")
    ]
    assert (await suite.stub().ListTenants(request)).tenants


async def test_a_child_does_not_see_its_parent(suite, family):
    _, child, _ = family
    stub = suite.stub(suite.token(child))
    listed = await stub.ListTenants(pb.ListTenantsRequest())
    assert [each.name for each in listed.tenants] == [child.name]


async def test_another_tenant_s_name_is_refused_before_anything_is_read(suite, family, refused):
    parent, _, stranger = family
    stub = suite.stub(suite.token(parent))
    error = await refused(stub.GetTenant(pb.GetTenantRequest(name=stranger.name)))
    assert error.reason == "CROSS_TENANT"


async def test_a_client_admin_creates_sub_tenants_below_itself_only(suite, family, refused):
    parent, _, stranger = family
    stub = suite.stub(suite.token(parent))
    operation = await suite.begin(stub=stub, parent=parent.name)
    seen = await stub.GetOperation(pb.GetOperationRequest(name=operation.name))
    strange = await refused(suite.begin(stub=stub, parent=stranger.name))
    top = await refused(suite.begin(stub=stub))
    placed = await refused(suite.begin(stub=stub, parent=parent.name, cluster="clusters/local"))
    assert seen.name == operation.name
    assert (strange.reason, top.reason) == ("CROSS_TENANT", "PARENT_NOT_OWN")
    assert [found.reason for found in placed.violations] == ["CLUSTER_SET_BY_PROVIDER"]


async def test_a_sub_tenant_gets_no_slug_that_another_tenant_has(suite, family, refused):
    parent, _, _ = family
    taken = unique_slug("sold")
    await suite.begin(taken)
    own = suite.stub(suite.token(parent))
    same = await refused(suite.begin(taken, stub=own, parent=parent.name))
    alike = await refused(suite.begin(taken.replace("sold", "so1d"), stub=own, parent=parent.name))
    assert (same.reason, alike.reason) == ("SLUG_TAKEN", "SLUG_CONFUSABLE")


async def test_an_operation_of_another_tenant_is_not_found(suite, family, refused):
    parent, _, _ = family
    operation = await suite.begin()
    stub = suite.stub(suite.token(parent))
    error = await refused(stub.GetOperation(pb.GetOperationRequest(name=operation.name)))
    assert error.reason == "OPERATION_NOT_FOUND"


async def test_only_the_tenant_widens_the_provider_s_access_and_only_the_provider_the_tier(
    suite, family, refused
):
    parent, _, _ = family
    wide = tenant_pb2.Tenant(name=parent.name, provider_access=tenant_pb2.PROVIDER_ACCESS_FULL)
    tall = tenant_pb2.Tenant(name=parent.name, tier=tenant_pb2.TIER_ENTERPRISE)
    own, access, tier = suite.stub(suite.token(parent)), ["provider_access"], ["tier"]
    provider = await refused(update(suite.stub(), wide, access))
    itself = await refused(update(own, tall, tier))
    assert provider.reason == "PROVIDER_ACCESS_GRANTED_BY_TENANT"
    assert itself.reason == "TIER_SET_BY_PROVIDER"
    assert (await update(own, wide, access)).provider_access == tenant_pb2.PROVIDER_ACCESS_FULL
    assert (await update(suite.stub(), tall, tier)).tier == tenant_pb2.TIER_ENTERPRISE


async def test_who_creates_a_tenant_states_the_access_that_its_contract_begins_with(suite, refused):
    full = await suite.tenant(provider_access="PROVIDER_ACCESS_FULL")
    less = tenant_pb2.Tenant(name=full.name, provider_access=tenant_pb2.PROVIDER_ACCESS_NONE)
    await update(suite.stub(), less, ["provider_access"])
    again = tenant_pb2.Tenant(name=full.name, provider_access=full.provider_access)
    error = await refused(update(suite.stub(), again, ["provider_access"]))
    assert full.provider_access == tenant_pb2.PROVIDER_ACCESS_FULL
    assert error.reason == "PROVIDER_ACCESS_GRANTED_BY_TENANT"


async def test_listing_goes_by_filter_and_page(suite, family, refused):
    parent, child, _ = family
    wanted = pb.TenantFilter(parent=parent.name)
    listed = await suite.stub().ListTenants(pb.ListTenantsRequest(filter=wanted))
    first = await suite.stub().ListTenants(pb.ListTenantsRequest(page_size=1))
    request = pb.ListTenantsRequest(page_size=1, page_token=first.next_page_token)
    second = await suite.stub().ListTenants(request)
    request.filter.CopyFrom(wanted)
    error = await refused(suite.stub().ListTenants(request))
    assert [each.name for each in listed.tenants] == [child.name]
    assert first.tenants[0].name < second.tenants[0].name
    assert error.reason == "PAGE_TOKEN_MISMATCH"


async def test_each_filter_leaves_out_who_differs_in_it_and_nobody_else(suite):
    profile = "SECTOR_PROFILE_MULTISITE"
    head = await suite.tenant(tier="TIER_ENTERPRISE")
    shared = await suite.tenant(parent=head.name, sector_profile=profile)
    schema = await suite.tenant(parent=head.name, isolation_mode="ISOLATION_MODE_SCHEMA")
    await suite.stub().SuspendTenant(pb.SuspendTenantRequest(name=schema.name, reason="unpaid"))

    async def listed(**fields):
        request = pb.ListTenantsRequest(filter=pb.TenantFilter(parent=head.name, **fields))
        return {each.name for each in (await suite.stub().ListTenants(request)).tenants}

    both = {shared.name, schema.name}
    assert await listed() == await listed(cluster="clusters/local", country="countries/fr") == both
    assert await listed(cluster="clusters/elsewhere") == await listed(country="countries/de") == set()
    assert await listed(states=["TENANT_STATE_SUSPENDED"]) == {schema.name}
    assert await listed(states=["TENANT_STATE_SUSPENDED", "TENANT_STATE_ACTIVE"]) == both
    assert await listed(isolation_modes=["ISOLATION_MODE_SCHEMA"]) == {schema.name}
    assert await listed(isolation_modes=["ISOLATION_MODE_DEDICATED"]) == set()
    assert await listed(sector_profile=profile) == {shared.name}


async def update(stub, tenant, paths):
    return await stub.UpdateTenant(pb.UpdateTenantRequest(tenant=tenant, update_mask=FieldMask(paths=paths)))


async def test_why_a_creation_fails_is_told_without_where_it_was_to_be(suite):
    parent = await suite.tenant(tier="TIER_BUSINESS", isolation_mode="ISOLATION_MODE_DEDICATED")
    stub, country = suite.stub(suite.token(parent)), parent.country
    brest = tenant_pb2.Cluster(
        name="clusters/brest", country=country, kind=tenant_pb2.CLUSTER_KIND_DEDICATED, secret_ref="brest"
    )
    await suite.stub().CreateCluster(pb.CreateClusterRequest(cluster=brest))
    try:
        begun = await suite.begin(stub=stub, parent=parent.name)
        whole = await suite.finish(begun)
    finally:
        closed = pb.UpdateClusterRequest(cluster=tenant_pb2.Cluster(name=brest.name, cordoned=True))
        closed.update_mask.paths.append("cordoned")
        await suite.stub().UpdateCluster(closed)
    seen = await stub.GetOperation(pb.GetOperationRequest(name=begun.name))
    info, steps = error_details_pb2.ErrorInfo(), pb.OperationMetadata()
    assert any(detail.Unpack(info) for detail in seen.error.details)
    seen.metadata.Unpack(steps)
    assert info.reason == "CLUSTER_NOT_CONFIGURED"
    # Its provider may be a tenant, too, and is told no more.
    assert "the platform can read why" in seen.error.message
    assert [step.error for step in steps.steps if step.error] == [info.reason]
    assert "brest" in str(whole)
    assert "brest" not in str(seen)
