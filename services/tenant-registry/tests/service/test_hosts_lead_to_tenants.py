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


async def test_a_host_name_has_one_tenant_and_is_free_when_given_up(suite, refused):
    host = f"{unique_slug()}.example"
    first = await suite.tenant(tier="TIER_BUSINESS", host_names=[host])
    second = await suite.tenant(tier="TIER_BUSINESS")

    async def take(tenant, names):
        asked = tenant_pb2.Tenant(name=tenant.name, host_names=names)
        mask = FieldMask(paths=["host_names"])
        return await suite.stub().UpdateTenant(pb.UpdateTenantRequest(tenant=asked, update_mask=mask))

    assert (await refused(take(second, [host]))).reason == "HOST_NAME_TAKEN"
    await take(first, [])
    await take(second, [host])
    assert await resolve(suite, host) == second.name
