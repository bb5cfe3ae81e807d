from __future__ import annotations

import pytest

from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as pb

from .conftest import unique_slug

pytestmark = pytest.mark.asyncio(loop_scope="session")


def create(**fields):
    asked = {"display_name": "x", "country": "countries/fr", **fields}
    return pb.CreateTenantRequest(tenant_slug=unique_slug(), tenant=tenant_pb2.Tenant(**asked))


def cluster(**fields):
    asked = {"name": "clusters/a", "country": "countries/fr", "secret_ref": "x", **fields}
    return pb.CreateClusterRequest(cluster=tenant_pb2.Cluster(**asked))


def suspension(reason):
    return pb.SuspendTenantRequest(name="tenants/x", reason=reason)


def listing(**fields):
    return pb.ListTenantsRequest(filter=pb.TenantFilter(**fields))


CALLS = [
    ("SuspendTenant", suspension("a\0b"), "REASON_UNREADABLE"),
    ("SuspendTenant", suspension("\u00a0\u200b"), "REASON_UNREADABLE"),
    ("CreateTenant", create(parent="tenants/a\0b"), "PARENT_UNKNOWN"),
    ("CreateTenant", create(country="countries/a\0"), "COUNTRY_INVALID"),
    ("CreateTenant", create(display_name="a\0"), "DISPLAY_NAME_CHARACTERS"),
    ("CreateTenant", create(cluster="clusters/\0"), "CLUSTER_UNKNOWN"),
    ("CreateCluster", cluster(region="\0"), "REGION_CHARACTERS"),
    ("CreateCluster", cluster(secret_ref="a\0"), "SECRET_REF_INVALID"),
    ("CreateCluster", cluster(country="countries/\0"), "COUNTRY_UNKNOWN"),
    ("ListTenants", listing(country="countries/\0"), "FILTER_INVALID"),
    ("ListTenants", listing(parent="tenants/a\0b"), "FILTER_INVALID"),
    ("ListTenants", listing(parent="tenants/"), "FILTER_INVALID"),
    ("ListTenants", listing(cluster="clusters/\n"), "FILTER_INVALID"),
    ("ListTenants", listing(states=[99]), "ENUM_DEFINED_ONLY"),
    ("ListTenants", listing(isolation_modes=[99]), "ENUM_DEFINED_ONLY"),
    ("ListTenants", listing(sector_profile=99), "ENUM_DEFINED_ONLY"),
]


@pytest.mark.parametrize(("method", "request_", "reason"), CALLS)
async def test_what_no_name_is_made_of_is_refused_with_its_reason(suite, refused, method, request_, reason):
    error = await refused(getattr(suite.stub(), method)(request_))
    assert error.code.name == "INVALID_ARGUMENT"
    assert [found.reason for found in error.violations] == [reason]
