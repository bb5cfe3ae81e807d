from __future__ import annotations

import socket

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as pb

from .conftest import unique_slug
from .test_placement_is_checked import cluster

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def create(suite, code, *allowed):
    asked = tenant_pb2.Country(
        name=f"countries/{code}",
        display_name=code,
        allowed_cluster_countries=[f"countries/{a}" for a in allowed],
    )
    return await suite.stub().CreateCountry(pb.CreateCountryRequest(country=asked))


async def update(suite, code, etag="", **fields):
    if "allowed_cluster_countries" in fields:
        fields["allowed_cluster_countries"] = [f"countries/{a}" for a in fields["allowed_cluster_countries"]]
    asked = tenant_pb2.Country(name=f"countries/{code}", etag=etag, **fields)
    mask = FieldMask(paths=list(fields))
    return await suite.stub().UpdateCountry(pb.UpdateCountryRequest(country=asked, update_mask=mask))


async def audited(suite, resource):
    rows = await suite.fetch("select data from tenant_registry.outbox where type like '%audit%'")
    return sum(resource.encode() in row["data"] for row in rows)


async def test_a_wider_policy_holds_for_the_next_tenant_and_is_audited(suite, refused):
    made = await create(suite, "dk")
    assert (await refused(suite.begin(country="countries/dk"))).reason == "NO_CLUSTER_IN_COUNTRY"
    changed = await update(suite, "dk", made.etag, allowed_cluster_countries=["dk", "fr"])
    tenant = await suite.tenant(country="countries/dk")
    stale = await refused(update(suite, "dk", made.etag, display_name="Danmark"))
    named = await update(suite, "dk", changed.etag, display_name="Danmark")
    assert list(changed.allowed_cluster_countries) == ["countries/dk", "countries/fr"]
    assert (tenant.placement.cluster, stale.reason) == ("local", "ETAG_MISMATCH")
    assert (named.display_name, named.allowed_cluster_countries) == (
        "Danmark",
        changed.allowed_cluster_countries,
    )
    assert await audited(suite, "countries/dk") == 3


async def test_a_policy_that_tenants_violate_is_refused_with_their_names_also_below(suite, refused):
    await create(suite, "se", "fr")
    await create(suite, "no", "fr", "no")
    parent = await suite.tenant(country="countries/se", tier="TIER_BUSINESS")
    child = await suite.tenant(country="countries/no", parent=parent.name)
    error = await refused(update(suite, "se", allowed_cluster_countries=["se", "no"]))
    assert (error.reason, error.code.name) == ("RESIDENCY_IN_USE", "FAILED_PRECONDITION")
    assert all(each.name.removeprefix("tenants/") in error.message for each in (parent, child))
    await update(suite, "se", allowed_cluster_countries=["se", "fr", "no"])
    rows = await suite.fetch(
        "select distinct slug, residency from tenant_registry.tenants where country in ('se', 'no')"
    )
    assert {row["slug"]: row["residency"] for row in rows} == {
        parent.name.removeprefix("tenants/"): ["fr", "no", "se"],
        child.name.removeprefix("tenants/"): ["fr", "no"],
    }


async def test_a_policy_is_refused_for_who_is_still_being_made_as_well(suite, refused):
    await create(suite, "ee", "ee", "fr")
    await cluster(suite, "tallinn", "ee")
    slug = unique_slug()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for host in suite.hosts:
            host.clusters["tallinn"] = f"postgresql://:x@127.0.0.1:{silent.getsockname()[1]}"
        operation = await suite.begin(slug, country="countries/ee")
        error = await refused(update(suite, "ee", allowed_cluster_countries=["fr"]))
        (row,) = await suite.fetch("select phase, placed from tenant_registry.tenants where slug = $1", slug)
    failed = await suite.finish(operation)
    assert (row["phase"], row["placed"]) == ("PROVISIONING", False)
    assert (error.reason, slug in error.message) == ("RESIDENCY_IN_USE", True)
    assert failed.HasField("error")
    await update(suite, "ee", allowed_cluster_countries=["fr"])
    resumed = await suite.stub().ResumeTenant(pb.ResumeTenantRequest(name=f"tenants/{slug}"))
    assert resumed.placement.cluster == "local"


async def test_what_is_wrong_with_a_change_is_told(suite, refused):
    await create(suite, "fi")
    unknown = await refused(update(suite, "is", display_name="x"))
    wrong = await refused(update(suite, "fi", allowed_cluster_countries=["zz"]))
    field = await refused(update(suite, "fi", etag=unique_slug(), display_name="x"))
    assert (unknown.reason, wrong.violations[0].reason) == ("COUNTRY_NOT_FOUND", "COUNTRY_INVALID")
    assert field.reason == "ETAG_MISMATCH"
