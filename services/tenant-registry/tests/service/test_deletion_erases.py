from __future__ import annotations

from uuid import UUID

import pytest

from tlsy.contracts.audit_log.events.v1.events_pb2 import AuditRecorded
from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as pb
from tlsy.runtime.ids import PLATFORM_TENANT_ID

from .conftest import unique_slug

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def delete(suite, tenant, *, skip_retention=True):
    request = pb.DeleteTenantRequest(name=tenant.name, skip_retention=skip_retention)
    return await suite.stub().DeleteTenant(request)


@pytest.mark.parametrize("mode", ["SHARED", "SCHEMA", "DEDICATED"])
async def test_what_is_deleted_is_gone_and_its_slug_free(suite, mode):
    slug = unique_slug()
    tenant = await suite.tenant(slug, isolation_mode=f"ISOLATION_MODE_{mode}")
    done = await suite.finish(await delete(suite, tenant))
    metadata = pb.OperationMetadata()
    done.metadata.Unpack(metadata)
    assert [step.name for step in metadata.steps if step.done] == [
        "fence",
        "retain",
        "erase",
        "verify",
        "release",
    ]
    fences = await suite.fetch("select 1 from tlsy.fence where tenant_id = $1", UUID(tenant.tenant_id))
    databases = await suite.fetch("select 1 from pg_database where datname = $1", tenant.placement.database)
    assert (fences, len(databases)) == ([], 0 if mode == "DEDICATED" else 1)
    again = await suite.tenant(slug)
    assert again.tenant_id != tenant.tenant_id


async def test_who_had_it_erased_stands_in_a_log_that_is_not_erased_with_it(suite):
    tenant = await suite.tenant()
    await suite.finish(await delete(suite, tenant))
    rows = await suite.fetch("select data from tenant_registry.outbox where type like '%audit%' order by seq")
    told = [AuditRecorded.FromString(row["data"]) for row in rows]
    of_it = {each.method.rpartition("/")[2]: each for each in told if each.resource == tenant.name}
    asked, erased = of_it["DeleteTenant"], of_it["erase"]
    assert UUID(erased.tenant_id) == PLATFORM_TENANT_ID
    assert (erased.details["asked_by"], erased.request_id) == (asked.principal, asked.request_id)
    assert erased.details["tenant_id"] == tenant.tenant_id


async def test_within_the_retention_time_it_is_closed_kept_and_its_slug_taken(suite, refused):
    slug = unique_slug()
    tenant = await suite.tenant(slug)
    operation = await delete(suite, tenant, skip_retention=False)
    error = await refused(suite.begin(slug))
    host = pb.ResolveHostRequest(host_name=f"{slug}.tlsy.example")
    seen = await suite.get(tenant)
    assert not operation.done
    assert error.reason == "SLUG_TAKEN"
    assert (await refused(suite.stub().ResolveHost(host))).reason == "HOST_UNKNOWN"
    assert (seen.state, seen.epoch) == (tenant_pb2.TENANT_STATE_DELETING, 2)


async def test_a_parent_is_not_deleted_before_what_is_below_it(suite, refused):
    parent = await suite.tenant()
    await suite.tenant(parent=parent.name)
    error = await refused(delete(suite, parent))
    assert error.reason == "HAS_SUB_TENANTS"


async def test_room_on_the_cluster_is_given_back(suite):
    async def count():
        rows = await suite.fetch(
            "select tenant_count from tenant_registry.clusters where cluster_id = 'local'"
        )
        return rows[0]["tenant_count"]

    before = await count()
    tenant = await suite.tenant()
    await suite.finish(await delete(suite, tenant))
    assert await count() == before
