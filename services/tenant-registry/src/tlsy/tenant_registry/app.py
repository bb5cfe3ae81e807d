"""Composition of the tenant registry."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import available_timezones

from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2, tenant_registry_pb2_grpc
from tlsy.rpc.assembly import ClusterDsns, assemble
from tlsy.rpc.server import Served
from tlsy.runtime.service import Part, Task
from tlsy.tenancy.cluster import MIGRATOR
from tlsy.tenancy.database import Databases, PoolLimits
from tlsy.tenancy.executor import Executor
from tlsy.tenancy.migrations import Schemas, installed, renderer
from tlsy.tenant_registry.adapters.postgres import load_statements
from tlsy.tenant_registry.adapters.postgres.operations import PostgresOperations
from tlsy.tenant_registry.adapters.postgres.places import PostgresPlaces
from tlsy.tenant_registry.adapters.postgres.signals import PostgresSignals
from tlsy.tenant_registry.adapters.postgres.tenants import PostgresTenants
from tlsy.tenant_registry.consumers import Duty, Provisioner
from tlsy.tenant_registry.domain.hosts import ascii_host
from tlsy.tenant_registry.domain.kinds import ClusterKind
from tlsy.tenant_registry.domain.operation import RetryPolicy
from tlsy.tenant_registry.domain.placement import Cluster, Country
from tlsy.tenant_registry.handlers.bootstrap import Bootstrap
from tlsy.tenant_registry.handlers.catalogue import Catalogue
from tlsy.tenant_registry.handlers.create_cluster import CreateCluster
from tlsy.tenant_registry.handlers.create_country import CreateCountry
from tlsy.tenant_registry.handlers.create_tenant import CreateTenant, Installation
from tlsy.tenant_registry.handlers.delete_tenant import DeleteTenant
from tlsy.tenant_registry.handlers.effects import Effects
from tlsy.tenant_registry.handlers.get_operation import GetOperation
from tlsy.tenant_registry.handlers.get_tenant import GetTenant
from tlsy.tenant_registry.handlers.list_clusters import ListClusters
from tlsy.tenant_registry.handlers.list_countries import ListCountries
from tlsy.tenant_registry.handlers.list_entitlements import ListEntitlements
from tlsy.tenant_registry.handlers.list_modules import ListModules
from tlsy.tenant_registry.handlers.list_tenants import ListTenants
from tlsy.tenant_registry.handlers.resolve_host import ResolveHost
from tlsy.tenant_registry.handlers.resume_tenant import ResumeTenant
from tlsy.tenant_registry.handlers.run_operation import RunOperation
from tlsy.tenant_registry.handlers.set_entitlement import SetEntitlement
from tlsy.tenant_registry.handlers.set_module import SetModule
from tlsy.tenant_registry.handlers.snapshot_catalog import SnapshotCatalog
from tlsy.tenant_registry.handlers.suspend_tenant import SuspendTenant
from tlsy.tenant_registry.handlers.update_cluster import UpdateCluster
from tlsy.tenant_registry.handlers.update_country import UpdateCountry
from tlsy.tenant_registry.handlers.update_tenant import UpdateTenant
from tlsy.tenant_registry.handlers.upgrade import Upgrade
from tlsy.tenant_registry.handlers.upkeep import Upkeep
from tlsy.tenant_registry.handlers.wait_operation import WaitOperation
from tlsy.tenant_registry.rpc.servicer import Handlers, TenantRegistryServicer

if TYPE_CHECKING:
    from tlsy.rpc.assembly import Assembly
    from tlsy.runtime.host import Host
    from tlsy.runtime.service import Service
    from tlsy.tenancy.lease import Lease
    from tlsy.tenant_registry.settings import TenantRegistrySettings

_PACKAGE: Final = "tenant_registry"
_SETTLED_S: Final = 2.0


def build(settings: TenantRegistrySettings, host: Host) -> Service:
    """Wire the service; no I/O. ValueError: base_domain is no host name."""
    base_domain = ascii_host(settings.base_domain)
    if base_domain is None:
        raise ValueError(f"TLSY_TENANT_REGISTRY_BASE_DOMAIN: {settings.base_domain!r} is no host name")
    installation = Installation(
        base_domain=base_domain,
        shared_database=settings.shared_database,
        time_zones=frozenset(available_timezones()),
    )
    assembly = assemble(host, _PACKAGE)
    statements = load_statements()
    listening = Databases(ClusterDsns(host.clusters, f"tlsy_{_PACKAGE}"), PoolLimits(total=1), host.clock)
    signals = PostgresSignals(listening, assembly.control, host.clock)
    catalogue = Catalogue(
        tenancy=assembly.tenancy,
        tenants=PostgresTenants(statements),
        places=PostgresPlaces(statements),
        operations=PostgresOperations(statements),
        signals=signals,
        effects=Effects(host.clock, host.ids),
        clock=host.clock,
        ids=host.ids,
    )
    bootstrap = Bootstrap(catalogue, installation, _first_country(settings), _first_cluster(settings))
    served = Served(
        tenant_registry_pb2.DESCRIPTOR.services_by_name["TenantRegistryService"],
        tenant_registry_pb2_grpc.add_TenantRegistryServiceServicer_to_server,
        TenantRegistryServicer(_handlers(settings, catalogue, installation)),
    )
    provisioner = _provisioner(settings, assembly, catalogue, signals)
    return assembly.supervisor(
        [served],
        parts=[Part(signals), Part(Task("bootstrap", bootstrap.run))],
        workers=[Part(_provisioning(provisioner, assembly), needs=(signals.name,))],
        checks=[bootstrap.missing],
    )


def _handlers(settings: TenantRegistrySettings, catalogue: Catalogue, installation: Installation) -> Handlers:
    get_operation = GetOperation(catalogue)
    return Handlers(
        create_tenant=CreateTenant(catalogue, installation),
        get_tenant=GetTenant(catalogue),
        list_tenants=ListTenants(catalogue),
        update_tenant=UpdateTenant(catalogue, installation),
        suspend_tenant=SuspendTenant(catalogue),
        resume_tenant=ResumeTenant(catalogue),
        delete_tenant=DeleteTenant(catalogue, timedelta(days=settings.retention_days)),
        get_operation=get_operation,
        wait_operation=WaitOperation(catalogue, get_operation),
        resolve_host=ResolveHost(catalogue, installation.base_domain),
        list_modules=ListModules(catalogue),
        set_module=SetModule(catalogue),
        list_entitlements=ListEntitlements(catalogue),
        set_entitlement=SetEntitlement(catalogue),
        create_country=CreateCountry(catalogue),
        update_country=UpdateCountry(catalogue),
        list_countries=ListCountries(catalogue),
        create_cluster=CreateCluster(catalogue),
        update_cluster=UpdateCluster(catalogue),
        list_clusters=ListClusters(catalogue),
        snapshot_catalog=SnapshotCatalog(catalogue),
    )


def _provisioning(provisioner: Provisioner, assembly: Assembly) -> Task:
    async def run(stopping: asyncio.Event) -> None:
        # What renders the tables is heavy to load: when the service has started, and beside its calls.
        with suppress(TimeoutError):
            await asyncio.wait_for(assembly.catalog.wait_ready(), _SETTLED_S)
        await asyncio.to_thread(renderer)
        await provisioner.run(stopping)

    return Task("provisioner", run)


def _provisioner(
    settings: TenantRegistrySettings, assembly: Assembly, catalogue: Catalogue, signals: PostgresSignals
) -> Provisioner:
    host = assembly.host
    # An action holds a connection to the control database and up to two to the placement's.
    at_once = settings.in_flight + 1
    per_database = 2 * at_once + 4
    limits = PoolLimits(
        total=4 * at_once + 8,
        per_database=per_database,
        statement_timeout_s=settings.attempt_timeout_s,
        idle_transaction_timeout_s=settings.attempt_timeout_s,
    )
    databases = Databases(ClusterDsns(host.clusters, MIGRATOR), limits, host.clock)
    schemas = Schemas(installed())

    def placements(lease: Lease) -> Executor:
        return Executor(
            databases=databases,
            control=assembly.control,
            schemas=schemas,
            lease=lease,
            clock=host.clock,
            kept_in_control=(_PACKAGE,),
            max_relations=settings.max_relations,
        )

    metrics = host.telemetry.registry
    upkeep = Upkeep(
        catalogue,
        databases,
        assembly.control,
        timedelta(days=settings.keep_operations_days),
        shared_database=settings.shared_database,
        metrics=metrics,
        max_relations=settings.max_relations,
    )
    upgrade = Upgrade(
        catalogue,
        databases,
        schemas,
        assembly.control,
        percent=settings.upgrade_percent,
        metrics=metrics,
    )
    return Provisioner(
        catalogue,
        RunOperation(
            catalogue,
            RetryPolicy(
                max_attempts=settings.attempts,
                first_delay_s=settings.first_delay_s,
                max_delay_s=settings.max_delay_s,
            ),
            assembly.jitter,
            settings.attempt_timeout_s,
        ),
        databases=databases,
        control=assembly.control,
        placements=placements,
        due=signals.due,
        duties=(
            Duty(name="upgrade", every_s=settings.upgrade_s, run=upgrade.run),
            Duty(name="upkeep", every_s=settings.upkeep_s, run=lambda _: upkeep.maintain_all()),
            Duty(name="probe", every_s=settings.probe_s, run=lambda _: upkeep.probe_clusters()),
        ),
        holder=str(host.ids()),
        lease_s=settings.lease_s,
        in_flight=settings.in_flight,
    )


def _first_country(settings: TenantRegistrySettings) -> Country:
    return Country(
        code=settings.platform_country,
        display_name=settings.platform_country_name,
        allowed_cluster_countries=frozenset(),
        version=1,
    )


def _first_cluster(settings: TenantRegistrySettings) -> Cluster:
    return Cluster(
        cluster_id=settings.first_cluster,
        region=settings.first_cluster_region,
        country=settings.platform_country,
        kind=ClusterKind.SHARED,
        secret_ref=settings.first_cluster,
        max_tenants=0,
        cordoned=False,
        tenant_count=0,
        reachable=True,
    )
