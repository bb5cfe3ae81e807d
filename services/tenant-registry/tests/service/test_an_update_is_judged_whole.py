from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as pb

from .conftest import unique_slug

pytestmark = pytest.mark.asyncio(loop_scope="session")

#: A mask that is none, and what is told of it.
MASKS = [
    (None, "UPDATE_MASK_EMPTY"),
    (FieldMask(), "UPDATE_MASK_EMPTY"),
    (FieldMask(paths=["etag"]), "UPDATE_MASK_UNKNOWN_PATH"),
]


def told(error):
    assert error.code.name == "INVALID_ARGUMENT"
    return [(found.field, found.reason) for found in error.violations]


@pytest.mark.parametrize(("mask", "why"), MASKS)
async def test_what_is_wrong_with_a_tenant_s_name_mask_and_values_is_told_at_once(suite, refused, mask, why):
    asked = tenant_pb2.Tenant(
        name="acme",
        display_name="\0",
        locale="?",
        time_zone="Mars",
        currency_code="?",
        host_names=["q"],
    )
    request = pb.UpdateTenantRequest(tenant=asked, update_mask=mask)
    assert told(await refused(suite.stub().UpdateTenant(request))) == [
        ("tenant.name", "RESOURCE_NAME_INVALID"),
        ("update_mask", why),
        ("tenant.display_name", "DISPLAY_NAME_CHARACTERS"),
        ("tenant.locale", "LOCALE_INVALID"),
        ("tenant.time_zone", "TIME_ZONE_UNKNOWN"),
        ("tenant.currency_code", "CURRENCY_UNKNOWN"),
        ("tenant.host_names[0]", "HOST_NAME_INVALID"),
    ]


async def test_with_a_bad_mask_is_told_what_the_tenant_s_own_state_forbids_and_its_etag_comes_later(
    suite, refused
):
    child = await suite.tenant(parent=(await suite.tenant()).name)
    asked = tenant_pb2.Tenant(
        name=child.name, tier=tenant_pb2.TIER_ENTERPRISE, host_names=["a.example"], etag="stale"
    )
    request = pb.UpdateTenantRequest(tenant=asked, update_mask=FieldMask(paths=["tiers", "tier"]))
    assert told(await refused(suite.stub().UpdateTenant(request))) == [
        ("update_mask", "UPDATE_MASK_UNKNOWN_PATH"),
        ("tenant.tier", "TIER_EXCEEDS_PARENT"),
        ("tenant.host_names", "HOST_NAMES_NOT_ENTITLED"),
    ]


async def test_host_names_are_judged_by_the_tier_that_comes_with_them(suite, refused):
    host = f"{unique_slug()}.example"
    tenant = await suite.tenant(tier="TIER_STARTER")

    def update(tier):
        asked = tenant_pb2.Tenant(name=tenant.name, tier=tier, host_names=[host])
        mask = FieldMask(paths=["tier", "host_names"])
        return suite.stub().UpdateTenant(pb.UpdateTenantRequest(tenant=asked, update_mask=mask))

    assert list((await update(tenant_pb2.TIER_BUSINESS)).host_names) == [host]
    assert told(await refused(update(tenant_pb2.TIER_STARTER))) == [
        ("tenant.host_names", "HOST_NAMES_NOT_ENTITLED")
    ]


async def test_a_tenant_does_not_learn_its_parent_s_tier_by_a_bad_mask(suite, refused):
    child = await suite.tenant(parent=(await suite.tenant()).name)
    asked = tenant_pb2.Tenant(name=child.name, tier=tenant_pb2.TIER_ENTERPRISE)
    request = pb.UpdateTenantRequest(tenant=asked, update_mask=FieldMask(paths=["tier", "tiers"]))
    error = await refused(suite.stub(suite.token(child)).UpdateTenant(request))
    assert told(error) == [("update_mask", "UPDATE_MASK_UNKNOWN_PATH")]


@pytest.mark.parametrize(("mask", "why"), MASKS)
async def test_what_is_wrong_with_a_country_s_name_mask_and_values_is_told_at_once(suite, refused, mask, why):
    asked = tenant_pb2.Country(name="fr", display_name="\0", allowed_cluster_countries=["countries/zz"])
    request = pb.UpdateCountryRequest(country=asked, update_mask=mask)
    assert told(await refused(suite.stub().UpdateCountry(request))) == [
        ("country.name", "RESOURCE_NAME_INVALID"),
        ("update_mask", why),
        ("country.display_name", "DISPLAY_NAME_EMPTY"),
        ("country.allowed_cluster_countries", "COUNTRY_INVALID"),
    ]


async def test_what_is_wrong_with_a_country_is_told_before_its_etag(suite, refused):
    asked = tenant_pb2.Country(name="countries/fr", display_name="\0", etag="stale")
    request = pb.UpdateCountryRequest(country=asked, update_mask=FieldMask(paths=["display_name"]))
    error = await refused(suite.stub().UpdateCountry(request))
    assert told(error) == [("country.display_name", "DISPLAY_NAME_EMPTY")]


@pytest.mark.parametrize(("mask", "why"), MASKS)
async def test_what_is_wrong_with_a_cluster_s_name_and_mask_is_told_at_once(suite, refused, mask, why):
    request = pb.UpdateClusterRequest(cluster=tenant_pb2.Cluster(name="local"), update_mask=mask)
    assert told(await refused(suite.stub().UpdateCluster(request))) == [
        ("cluster.name", "RESOURCE_NAME_INVALID"),
        ("update_mask", why),
    ]
