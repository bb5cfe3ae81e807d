"""Translates the catalogue's RPCs for its handlers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as pb
from tlsy.contracts.tenant_registry.v1.tenant_registry_pb2_grpc import TenantRegistryServiceServicer
from tlsy.rpc.call import current_call
from tlsy.rpc.errors import InvalidArgument, Violation
from tlsy.rpc.paging import Pages, fitting, page_size
from tlsy.tenant_registry.domain.entitlements import KINDS
from tlsy.tenant_registry.domain.modules import REQUIRES
from tlsy.tenant_registry.rpc import mapping

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import grpc
    from google.longrunning import operations_pb2

    from tlsy.contracts.tenant_registry.v1 import tenant_pb2
    from tlsy.rpc.call import Call
    from tlsy.tenant_registry.domain.operation import Operation
    from tlsy.tenant_registry.domain.tenant import Tenant
    from tlsy.tenant_registry.handlers.create_cluster import CreateCluster
    from tlsy.tenant_registry.handlers.create_country import CreateCountry
    from tlsy.tenant_registry.handlers.create_tenant import CreateTenant
    from tlsy.tenant_registry.handlers.delete_tenant import DeleteTenant
    from tlsy.tenant_registry.handlers.get_operation import GetOperation
    from tlsy.tenant_registry.handlers.get_tenant import GetTenant
    from tlsy.tenant_registry.handlers.list_clusters import ListClusters
    from tlsy.tenant_registry.handlers.list_countries import ListCountries
    from tlsy.tenant_registry.handlers.list_entitlements import ListEntitlements
    from tlsy.tenant_registry.handlers.list_modules import ListModules
    from tlsy.tenant_registry.handlers.list_tenants import ListTenants
    from tlsy.tenant_registry.handlers.resolve_host import ResolveHost
    from tlsy.tenant_registry.handlers.resume_tenant import ResumeTenant
    from tlsy.tenant_registry.handlers.set_entitlement import SetEntitlement
    from tlsy.tenant_registry.handlers.set_module import SetModule
    from tlsy.tenant_registry.handlers.snapshot_catalog import SnapshotCatalog
    from tlsy.tenant_registry.handlers.suspend_tenant import SuspendTenant
    from tlsy.tenant_registry.handlers.update_cluster import UpdateCluster
    from tlsy.tenant_registry.handlers.update_country import UpdateCountry
    from tlsy.tenant_registry.handlers.update_tenant import UpdateTenant
    from tlsy.tenant_registry.handlers.wait_operation import WaitOperation

    Context = grpc.aio.ServicerContext[Any, Any]

_DOMAIN: Final = "tlsy.tenant-registry"
#: Of a version, which is an int64.
_MAX_DIGITS: Final = 18
_FIRST: Final = ("", UUID(int=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Handlers:
    """One per RPC."""

    create_tenant: CreateTenant
    get_tenant: GetTenant
    list_tenants: ListTenants
    update_tenant: UpdateTenant
    suspend_tenant: SuspendTenant
    resume_tenant: ResumeTenant
    delete_tenant: DeleteTenant
    get_operation: GetOperation
    wait_operation: WaitOperation
    resolve_host: ResolveHost
    list_modules: ListModules
    set_module: SetModule
    list_entitlements: ListEntitlements
    set_entitlement: SetEntitlement
    create_country: CreateCountry
    update_country: UpdateCountry
    list_countries: ListCountries
    create_cluster: CreateCluster
    update_cluster: UpdateCluster
    list_clusters: ListClusters
    snapshot_catalog: SnapshotCatalog


class TenantRegistryServicer(TenantRegistryServiceServicer):
    """One method per RPC; what it takes and gives is in the proto."""

    def __init__(self, handlers: Handlers) -> None:
        self._do = handlers

    async def CreateTenant(
        self, request: pb.CreateTenantRequest, context: Context
    ) -> operations_pb2.Operation:
        """See the proto."""
        call = current_call()
        draft = mapping.draft_in(request)
        encode = _operation(call)
        return await self._do.create_tenant.run(call, draft, encode, validate_only=request.validate_only)

    async def GetTenant(self, request: pb.GetTenantRequest, context: Context) -> tenant_pb2.Tenant:
        """See the proto."""
        call = current_call()
        return _tenant(call)(await self._do.get_tenant.run(call, mapping.slug_in(request.name)))

    async def ListTenants(self, request: pb.ListTenantsRequest, context: Context) -> pb.ListTenantsResponse:
        """See the proto."""
        call, pages, limit = current_call(), Pages(current_call(), request), page_size(request.page_size)
        after = pages.place(request.page_token, (str, str), _slug_and_id) or _FIRST
        wanted = mapping.filter_in(request.filter, for_platform=call.of_platform)
        found = await self._do.list_tenants.run(call, wanted, after, limit)
        tenants, more = fitting(map(_tenant(call), found), more=len(found) == limit)
        last = found[len(tenants) - 1] if more else None
        cursor = None if last is None else (last.slug, str(last.tenant_id))
        return pb.ListTenantsResponse(tenants=tenants, next_page_token=pages.token(cursor))

    async def UpdateTenant(self, request: pb.UpdateTenantRequest, context: Context) -> tenant_pb2.Tenant:
        """See the proto."""
        call = current_call()
        slug, changes, wrong = mapping.tenant_changes_in(request)
        return await self._do.update_tenant.run(
            call, slug, changes, request.tenant.etag, _tenant(call), violations=wrong
        )

    async def SuspendTenant(self, request: pb.SuspendTenantRequest, context: Context) -> tenant_pb2.Tenant:
        """See the proto."""
        call, slug = current_call(), mapping.slug_in(request.name)
        return await self._do.suspend_tenant.run(call, slug, request.reason, request.etag, _tenant(call))

    async def ResumeTenant(self, request: pb.ResumeTenantRequest, context: Context) -> tenant_pb2.Tenant:
        """See the proto."""
        call, slug = current_call(), mapping.slug_in(request.name)
        return await self._do.resume_tenant.run(call, slug, request.etag, _tenant(call))

    async def DeleteTenant(
        self, request: pb.DeleteTenantRequest, context: Context
    ) -> operations_pb2.Operation:
        """See the proto."""
        call, slug = current_call(), mapping.slug_in(request.name)
        return await self._do.delete_tenant.run(
            call, slug, request.etag, _operation(call), skip_retention=request.skip_retention
        )

    async def GetOperation(
        self, request: pb.GetOperationRequest, context: Context
    ) -> operations_pb2.Operation:
        """See the proto."""
        call, operation_id = current_call(), mapping.operation_id_in(request.name)
        return _operation(call)(*await self._do.get_operation.run(call, operation_id))

    async def WaitOperation(
        self, request: pb.WaitOperationRequest, context: Context
    ) -> operations_pb2.Operation:
        """See the proto."""
        call, operation_id = current_call(), mapping.operation_id_in(request.name)
        return _operation(call)(*await self._do.wait_operation.run(call, operation_id))

    async def ResolveHost(self, request: pb.ResolveHostRequest, context: Context) -> pb.ResolveHostResponse:
        """See the proto."""
        tenant_id, slug = await self._do.resolve_host.run(current_call(), request.host_name)
        return pb.ResolveHostResponse(tenant=f"tenants/{slug}", tenant_id=str(tenant_id))

    async def ListModules(self, request: pb.ListModulesRequest, context: Context) -> pb.ListModulesResponse:
        """See the proto."""
        tenant = await self._do.list_modules.run(current_call(), mapping.slug_in(request.parent, "parent"))
        return pb.ListModulesResponse(modules=[mapping.module_out(tenant, module) for module in REQUIRES])

    async def SetModule(self, request: pb.SetModuleRequest, context: Context) -> tenant_pb2.Module:
        """See the proto."""
        named = mapping.MODULE.parse(request.name)
        slug, module = named["tenant"], named["module"]
        encode = partial(mapping.module_out, module=module)
        return await self._do.set_module.run(current_call(), slug, module, encode, enabled=request.enabled)

    async def ListEntitlements(
        self, request: pb.ListEntitlementsRequest, context: Context
    ) -> pb.ListEntitlementsResponse:
        """See the proto."""
        slug = mapping.slug_in(request.parent, "parent")
        tenant = await self._do.list_entitlements.run(current_call(), slug)
        return pb.ListEntitlementsResponse(
            entitlements=[mapping.entitlement_out(tenant, key) for key in KINDS]
        )

    async def SetEntitlement(
        self, request: pb.SetEntitlementRequest, context: Context
    ) -> tenant_pb2.Entitlement:
        """See the proto."""
        named = mapping.ENTITLEMENT.parse(request.name)
        slug, key = named["tenant"], named["entitlement"]
        value = request.value if request.HasField("value") else None
        encode = partial(mapping.entitlement_out, key=key)
        return await self._do.set_entitlement.run(current_call(), slug, key, value, encode)

    async def CreateCountry(self, request: pb.CreateCountryRequest, context: Context) -> tenant_pb2.Country:
        """See the proto."""
        country = mapping.country_in(request.country)
        return await self._do.create_country.run(current_call(), country, mapping.country_out)

    async def UpdateCountry(self, request: pb.UpdateCountryRequest, context: Context) -> tenant_pb2.Country:
        """See the proto."""
        code, display_name, allowed, wrong = mapping.country_changes_in(request)
        return await self._do.update_country.run(
            current_call(),
            code,
            request.country.etag,
            mapping.country_out,
            display_name=display_name,
            allowed=allowed,
            violations=wrong,
        )

    async def ListCountries(
        self, request: pb.ListCountriesRequest, context: Context
    ) -> pb.ListCountriesResponse:
        """See the proto."""
        call, limit = current_call(), page_size(request.page_size)
        pages = Pages(call, request)
        after = pages.place(request.page_token, (str,), str) or ""
        found = await self._do.list_countries.run(call, after, limit)
        last = (found[-1].code,) if len(found) == limit else None
        return pb.ListCountriesResponse(
            countries=[mapping.country_out(country) for country in found], next_page_token=pages.token(last)
        )

    async def CreateCluster(self, request: pb.CreateClusterRequest, context: Context) -> tenant_pb2.Cluster:
        """See the proto."""
        cluster = mapping.cluster_in(request.cluster)
        return await self._do.create_cluster.run(current_call(), cluster, mapping.cluster_out)

    async def UpdateCluster(self, request: pb.UpdateClusterRequest, context: Context) -> tenant_pb2.Cluster:
        """See the proto."""
        cluster_id, max_tenants, cordoned = mapping.cluster_changes_in(request)
        return await self._do.update_cluster.run(
            current_call(),
            cluster_id,
            request.cluster.etag,
            mapping.cluster_out,
            max_tenants=max_tenants,
            cordoned=cordoned,
        )

    async def ListClusters(
        self, request: pb.ListClustersRequest, context: Context
    ) -> pb.ListClustersResponse:
        """See the proto."""
        call, limit = current_call(), page_size(request.page_size)
        pages = Pages(call, request)
        after = pages.place(request.page_token, (str,), str) or ""
        found = await self._do.list_clusters.run(call, after, limit)
        last = (found[-1].cluster_id,) if len(found) == limit else None
        return pb.ListClustersResponse(
            clusters=[mapping.cluster_out(cluster) for cluster in found], next_page_token=pages.token(last)
        )

    async def SnapshotCatalog(
        self, request: pb.SnapshotCatalogRequest, context: Context
    ) -> AsyncIterator[pb.SnapshotCatalogResponse]:
        """See the proto."""
        async for entries, version in self._do.snapshot_catalog.run(current_call(), _since(request)):
            yield pb.SnapshotCatalogResponse(entries=entries, resume_token=str(version))


def _slug_and_id(slug: str, tenant_id: str) -> tuple[str, UUID]:
    return slug, UUID(tenant_id)


def _since(request: pb.SnapshotCatalogRequest) -> int:
    token = request.resume_token or "0"
    if not (token.isascii() and token.isdigit() and len(token) <= _MAX_DIGITS):
        text = "it is not one that this service gave"
        raise InvalidArgument(violations=[Violation("resume_token", "RESUME_TOKEN_INVALID", text)])
    return int(token)


def _tenant(call: Call) -> Callable[[Tenant], tenant_pb2.Tenant]:
    return partial(mapping.tenant_out, for_platform=call.of_platform)


def _operation(call: Call) -> Callable[[Operation, Tenant | None], operations_pb2.Operation]:
    return partial(mapping.operation_out, domain=_DOMAIN, for_platform=call.of_platform)
