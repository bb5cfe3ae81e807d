from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2

from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as pb

from .conftest import unique_slug

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def country(suite, code):
    asked = tenant_pb2.Country(name=f"countries/{code}", display_name=code.upper())
    return await suite.stub().CreateCountry(pb.CreateCountryRequest(country=asked))


async def cluster(suite, name, code, **fields):
    asked = {
        "name": f"clusters/{name}",
        "country": f"countries/{code}",
        "kind": tenant_pb2.CLUSTER_KIND_SHARED,
        "secret_ref": "a-secret",
        **fields,
    }
    return await suite.stub().CreateCluster(pb.CreateClusterRequest(cluster=tenant_pb2.Cluster(**asked)))


async def test_a_tenant_is_never_placed_outside_its_country_s_policy(suite, refused):
    await country(suite, "it")
    error = await refused(suite.begin(country="countries/it"))
    asked = await refused(suite.begin(country="countries/it", cluster="clusters/local"))
    assert error.reason == "NO_CLUSTER_IN_COUNTRY"
    assert [found.reason for found in asked.violations] == ["CLUSTER_OUT_OF_COUNTRY"]


async def test_the_last_room_of_a_cluster_is_given_once(suite):
    await country(suite, "es")
    await cluster(suite, "madrid", "es", max_tenants=1)
    answers = await asyncio.gather(
        *(suite.begin(country="countries/es") for _ in range(4)), return_exceptions=True
    )
    refusals = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert [refusal.code().name for refusal in refusals] == ["FAILED_PRECONDITION"] * 3
    listed = await suite.stub().ListClusters(pb.ListClustersRequest())
    assert {found.name: found.tenant_count for found in listed.clusters}["clusters/madrid"] == 1


@asynccontextmanager
async def filled_when_chosen(suite, name):
    """Somebody else takes the last room of the cluster after it was chosen, and before it is had."""
    other = await suite.installation.connect(None, suite.installation.control)
    asks = r"tenant_count \+ 1|for update"
    waits = f"select from pg_stat_activity where wait_event_type = 'Lock' and query ~ '{asks}'"
    async with other.transaction():
        fill = "update tenant_registry.clusters set tenant_count = max_tenants where cluster_id = $1"
        await other.execute(fill, name)
        yield
        async with asyncio.timeout(60):
            while not await suite.fetch(waits):
                await asyncio.sleep(0.01)


async def test_who_finds_the_last_room_taken_has_it_on_another_cluster(suite, refused):
    await country(suite, "be")
    for name in ("antwerp", "bruges"):
        await cluster(suite, name, "be", max_tenants=1)
    async with filled_when_chosen(suite, "antwerp"):
        creating = asyncio.create_task(suite.begin(slug := unique_slug(), country="countries/be"))
    await creating
    made = await suite.stub().GetTenant(pb.GetTenantRequest(name=f"tenants/{slug}"))
    assert made.placement.cluster == "bruges"
    assert (await refused(suite.begin(country="countries/be"))).reason == "CLUSTER_FULL"


async def test_who_is_resumed_and_finds_the_last_room_taken_has_it_on_another_cluster(suite):
    await country(suite, "nl")
    made = await cluster(suite, "delft", "nl")
    await suite.finish(await suite.begin(slug := unique_slug(), country="countries/nl"))
    for name in ("leiden", "utrecht"):
        await cluster(suite, name, "nl", max_tenants=1)
    await suite.stub().UpdateCluster(
        pb.UpdateClusterRequest(
            cluster=tenant_pb2.Cluster(name=made.name, cordoned=True),
            update_mask=FieldMask(paths=["cordoned"]),
        )
    )
    resume = pb.ResumeTenantRequest(name=f"tenants/{slug}")
    async with filled_when_chosen(suite, "leiden"):
        resuming = asyncio.ensure_future(suite.stub().ResumeTenant(resume))
    assert (await resuming).placement.cluster == "utrecht"
    listed = await suite.stub().ListClusters(pb.ListClustersRequest())
    counts = {found.name: found.tenant_count for found in listed.clusters}
    assert [counts[f"clusters/{name}"] for name in ("delft", "leiden", "utrecht")] == [0, 1, 1]


async def test_a_cordoned_cluster_takes_nobody_new(suite, refused):
    await country(suite, "pt")
    made = await cluster(suite, "lisbon", "pt")
    request = pb.UpdateClusterRequest(
        cluster=tenant_pb2.Cluster(name=made.name, cordoned=True, etag=made.etag),
        update_mask=FieldMask(paths=["cordoned"]),
    )
    changed = await suite.stub().UpdateCluster(request)
    error = await refused(suite.begin(country="countries/pt"))
    stale = await refused(suite.stub().UpdateCluster(request))
    assert changed.cordoned
    assert error.reason == "CLUSTER_CORDONED"
    assert stale.reason == "ETAG_MISMATCH"


async def test_a_cluster_that_does_not_answer_takes_nobody_new_until_it_does(suite, refused):
    await country(suite, "at")
    await cluster(suite, "vienna", "at")
    for host in suite.hosts:
        host.clusters["vienna"] = "postgresql://:x@127.0.0.1:1"
    slug = unique_slug()
    failed = await suite.finish(await suite.begin(slug, country="countries/at"))
    error = await refused(suite.begin(stub=suite.impatient_stub(), country="countries/at"))
    assert failed.error.message.startswith("database")
    assert (error.reason, error.code.name) == ("CLUSTER_UNREACHABLE", "UNAVAILABLE")
    for host in suite.hosts:
        host.clusters["vienna"] = host.clusters["local"]
    await suite.stub().ResumeTenant(pb.ResumeTenantRequest(name=f"tenants/{slug}"))
    request = pb.ListTenantsRequest(filter=pb.TenantFilter(country="countries/at"))
    while True:
        listed = await suite.stub().ListTenants(request)
        if listed.tenants[0].state == tenant_pb2.TENANT_STATE_ACTIVE:
            break
        await asyncio.sleep(0.05)


async def test_a_secret_is_not_taken_for_the_name_of_one(suite, refused):
    error = await refused(cluster(suite, "x", "fr", secret_ref="postgresql://root:pw@host/"))
    assert [found.reason for found in error.violations] == ["SECRET_REF_INVALID"]


async def test_countries_and_clusters_are_listed_in_pages(suite, refused):
    first = await suite.stub().ListCountries(pb.ListCountriesRequest(page_size=1))
    token = first.next_page_token
    second = await suite.stub().ListCountries(pb.ListCountriesRequest(page_size=1, page_token=token))
    other = await refused(suite.stub().ListClusters(pb.ListClustersRequest(page_token=token)))
    assert first.countries[0].name < second.countries[0].name
    assert other.reason == "PAGE_TOKEN_MISMATCH"


async def test_a_country_or_cluster_is_created_once(suite, refused):
    assert (await refused(country(suite, "fr"))).reason == "COUNTRY_EXISTS"
    assert (await refused(cluster(suite, "local", "fr"))).reason == "CLUSTER_EXISTS"


async def test_of_whom_nothing_was_made_he_is_placed_anew_when_resumed_or_just_forgotten(suite):
    await country(suite, "gr")
    await cluster(suite, "athens", "gr")
    slugs = [unique_slug() for _ in range(2)]
    for slug in slugs:
        failed = await suite.finish(await suite.begin(slug, country="countries/gr"))
        assert reason_of(failed) == "CLUSTER_NOT_CONFIGURED"
    for host in suite.hosts:
        host.clusters["patras"] = host.clusters["local"]
    await cluster(suite, "patras", "gr", max_tenants=1)
    await suite.stub().UpdateCluster(
        pb.UpdateClusterRequest(
            cluster=tenant_pb2.Cluster(name="clusters/athens", cordoned=True),
            update_mask=FieldMask(paths=["cordoned"]),
        )
    )
    resumed, forgotten = (f"tenants/{slug}" for slug in slugs)
    placed = await suite.stub().ResumeTenant(pb.ResumeTenantRequest(name=resumed))
    deletion = await suite.stub().DeleteTenant(pb.DeleteTenantRequest(name=forgotten))
    done = await suite.finish(deletion)
    listed = await suite.stub().ListClusters(pb.ListClustersRequest())
    counts = {found.name: found.tenant_count for found in listed.clusters}
    assert placed.placement.cluster == "patras"
    assert done.HasField("response")
    assert (counts["clusters/athens"], counts["clusters/patras"]) == (0, 1)
    while (await suite.get(placed)).state != tenant_pb2.TENANT_STATE_ACTIVE:
        await asyncio.sleep(0.05)


def reason_of(operation):
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in operation.error.details)
    return info.reason
