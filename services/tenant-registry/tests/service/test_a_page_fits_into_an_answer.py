from __future__ import annotations

import grpc
import pytest

from tlsy.contracts.tenant_registry.v1 import tenant_pb2, tenant_registry_pb2_grpc
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="session")

COUNT = 1_000
#: As many host names as a tenant may have, each nearly as long as may be.
HOST_NAMES = [f"h{index:02}.{'a.' * 115}example" for index in range(20)]
#: Erased ones: nothing of the suite follows them.
ADD = """
with added as (select gen_random_uuid() as id, n from generate_series(1, $3::integer) as n)
insert into tenant_registry.tenants
select made.*
from added, tenant_registry.tenants t,
jsonb_populate_record(null::tenant_registry.tenants, to_jsonb(t) || jsonb_build_object(
    'tenant_id', id, 'subject_id', id, 'slug', 'full-' || n, 'skeleton', 'full-' || n, 'state', 'DELETED',
    'cluster_id', $4::text, 'host_names', to_jsonb($2::text[]), 'version', -n
)) as made
where t.tenant_id = t.subject_id and t.subject_id = $1::text::uuid
"""
CLUSTER = """
insert into tenant_registry.clusters (
    cluster_id, region, country, kind, secret_ref, max_tenants, cordoned, tenant_count, version
)
select 'full', region, country, kind, secret_ref, 0, true, 0, version
from tenant_registry.clusters where cluster_id = 'local'
"""


async def test_the_largest_tenants_are_listed_in_answers_that_every_client_takes(suite):
    await suite.fetch(CLUSTER)
    await suite.fetch(ADD, (await suite.tenant()).tenant_id, HOST_NAMES, COUNT, "full")
    request = pb.ListTenantsRequest(
        page_size=COUNT,
        filter=pb.TenantFilter(cluster="clusters/full", states=[tenant_pb2.TENANT_STATE_DELETED]),
    )
    found: list[str] = []
    try:
        async with grpc.aio.insecure_channel(suite.hosts[0].listen) as channel:
            stub = tenant_registry_pb2_grpc.TenantRegistryServiceStub(channel)
            while not found or request.page_token:
                page = await stub.ListTenants(
                    request, metadata=(("authorization", f"Bearer {suite.root()}"),), timeout=30
                )
                found += [each.name for each in page.tenants]
                request.page_token = page.next_page_token
    finally:
        await suite.fetch("delete from tenant_registry.tenants where cluster_id = 'full'")
        await suite.fetch("delete from tenant_registry.clusters where cluster_id = 'full'")
    assert found == sorted(f"tenants/full-{n}" for n in range(1, COUNT + 1))
