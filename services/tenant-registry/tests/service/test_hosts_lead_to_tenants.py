from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as pb

from .conftest import unique_slug

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def resolve(suite, host):
    return (await suite.stub().ResolveHost(pb.ResolveHostRequest(host_name=host))).tenant


async def test_a_sub_domain_or_any_spelling_of_a_host_name_leads_to_its_tenant(suite, refused):
    slug = unique_slug()
    tenant = await suite.tenant(slug, tier="TIER_BUSINESS", host_names=[f"Bücher.{slug}.example"])
    assert await resolve(suite, f"{slug}.TLSY.example:443") == tenant.name
    assert await resolve(suite, f"xn--bcher-kva.{slug}.example.") == tenant.name
    assert (await refused(resolve(suite, f"a.{slug}.tlsy.example"))).reason == "HOST_UNKNOWN"
    assert (await refused(resolve(suite, "10.0.0.1"))).violations[0].reason == "HOST_NAME_INVALID"


async def update(suite, tenant, **fields):
    asked = tenant_pb2.Tenant(name=tenant.name, **fields)
    mask = FieldMask(paths=list(fields))
    return await suite.stub().UpdateTenant(pb.UpdateTenantRequest(tenant=asked, update_mask=mask))


async def test_a_child_s_tier_and_host_names_are_in_effect_as_far_as_its_parent_s_are(suite, refused):
    host = f"{unique_slug()}.example"
    parent = await suite.tenant(tier="TIER_ENTERPRISE")
    child = await suite.tenant(parent=parent.name, tier="TIER_ENTERPRISE", host_names=[host])
    await update(suite, parent, tier="TIER_STARTER")
    lowered = await suite.get(child)
    assert (lowered.tier, lowered.active_tier) == (tenant_pb2.TIER_ENTERPRISE, tenant_pb2.TIER_STARTER)
    assert (await refused(resolve(suite, host))).reason == "HOST_UNKNOWN"
    assert await resolve(suite, f"{child.name.removeprefix('tenants/')}.tlsy.example") == child.name
    await update(suite, parent, tier="TIER_BUSINESS")
    assert (await suite.get(child)).active_tier == tenant_pb2.TIER_BUSINESS
    assert await resolve(suite, host) == child.name


async def test_a_host_name_has_one_tenant_and_is_free_when_given_up(suite, refused):
    host = f"{unique_slug()}.example"
    first = await suite.tenant(tier="TIER_BUSINESS", host_names=[host])
    second = await suite.tenant(tier="TIER_BUSINESS")

    draft = tenant_pb2.Tenant(
        display_name="x", country="countries/fr", tier=tenant_pb2.TIER_BUSINESS, host_names=[host]
    )
    request = pb.CreateTenantRequest(tenant_slug=unique_slug(), tenant=draft, validate_only=True)
    assert (await refused(suite.stub().CreateTenant(request))).reason == "HOST_NAME_TAKEN"
    assert (await refused(update(suite, second, host_names=[host]))).reason == "HOST_NAME_TAKEN"
    await update(suite, first, host_names=[])
    await update(suite, second, host_names=[host])
    assert await resolve(suite, host) == second.name
