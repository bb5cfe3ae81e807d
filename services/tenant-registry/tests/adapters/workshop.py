"""What a registry's worker has, without a server around it."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager

from tlsy.runtime.clock import SystemClock
from tlsy.runtime.ids import TenantId, Uuid7
from tlsy.tenancy.cluster import MIGRATOR
from tlsy.tenancy.context import PLATFORM, IsolationMode
from tlsy.tenancy.executor import Executor
from tlsy.tenancy.lease import take_lease
from tlsy.tenant_registry.adapters.postgres import load_statements
from tlsy.tenant_registry.adapters.postgres.operations import PostgresOperations
from tlsy.tenant_registry.adapters.postgres.places import PostgresPlaces
from tlsy.tenant_registry.adapters.postgres.tenants import PostgresTenants
from tlsy.tenant_registry.consumers import Provisioner
from tlsy.tenant_registry.domain.kinds import ClusterKind, Verb
from tlsy.tenant_registry.domain.operation import Outcome, RetryPolicy
from tlsy.tenant_registry.domain.placement import Cluster, Country
from tlsy.tenant_registry.domain.registration import Draft, Surroundings, register
from tlsy.tenant_registry.domain.tenant import deleting
from tlsy.tenant_registry.handlers.catalogue import Catalogue
from tlsy.tenant_registry.handlers.effects import Effects
from tlsy.tenant_registry.handlers.run_operation import RunOperation
from tlsy.testkit.installation import CLUSTER, PATIENT

FR = Country(code="fr", display_name="France", allowed_cluster_countries=frozenset(), version=1)
HERE = Cluster(
    cluster_id=CLUSTER,
    region="local",
    country="fr",
    kind=ClusterKind.SHARED,
    secret_ref=CLUSTER,
    max_tenants=0,
    cordoned=False,
    tenant_count=0,
    reachable=True,
)


class Deaf:
    """Signals that nobody gives."""

    @contextmanager
    def watch(self, operation_ids):
        yield asyncio.Event()


class Workshop:
    """What a registry's worker has, for one test."""

    def __init__(self, installation):
        self.installation = installation
        self.clock = SystemClock()
        ids = Uuid7(self.clock, os.urandom)
        statements = load_statements()
        self.catalogue = Catalogue(
            tenancy=installation.tenancy("tenant_registry"),
            tenants=PostgresTenants(statements),
            places=PostgresPlaces(statements),
            operations=PostgresOperations(statements),
            signals=Deaf(),
            effects=Effects(self.clock, ids),
            clock=self.clock,
            ids=ids,
        )
        self.databases = installation.databases(MIGRATOR, PATIENT)
        policy = RetryPolicy(max_attempts=3, first_delay_s=0.01, max_delay_s=0.01)
        self.run_operation = RunOperation(self.catalogue, policy, lambda: 1.0, 30)
        self.due = asyncio.Event()
        self.made = []

    async def lease(self, ttl_s=60.0, holder="a test"):
        async with self.databases.acquire(self.installation.control) as connection:
            return await take_lease(connection, "provisioner", holder, ttl_s)

    def executor(self, lease, **options):
        return Executor(
            databases=self.databases,
            control=self.installation.control,
            schemas=self.installation.schemas,
            lease=lease,
            clock=self.clock,
            kept_in_control=("tenant_registry",),
            **options,
        )

    def provisioner(self, holder, placements=None, duties=()):
        return Provisioner(
            self.catalogue,
            self.run_operation,
            databases=self.installation.databases(MIGRATOR, PATIENT),
            control=self.installation.control,
            placements=placements or self.executor,
            due=self.due,
            duties=duties,
            holder=holder,
            lease_s=0.6,
            in_flight=4,
        )

    async def create(self, mode, slug="acme"):
        """A registered tenant and its operation."""
        catalogue = self.catalogue
        around = Surroundings(
            country=FR,
            line=(),
            below=(),
            clusters=(HERE,),
            time_zones=frozenset({"Etc/UTC"}),
            base_domain="tlsy.example",
            by_platform=True,
        )
        draft = Draft(slug=slug, display_name="Acme", country="fr", isolation_mode=mode, overrides={})
        wanted = register(
            draft,
            around,
            tenant_id=TenantId(catalogue.ids()),
            now=self.clock.now(),
            shared_database=self.installation.common.database,
        )
        async with catalogue.writing() as tx:
            await catalogue.places.add_country(tx, FR)
            await catalogue.places.add_cluster(tx, HERE)
            await catalogue.places.take_room(tx, CLUSTER)
            tenant = await catalogue.tenants.insert(tx, wanted)
            assert tenant is not None
            operation = await catalogue.start(
                tx, Verb.CREATE, owner=None, target=tenant, now=self.clock.now()
            )
        if mode is IsolationMode.DEDICATED:
            self.made.append(tenant.database)
        return tenant, operation

    async def active(self, mode=IsolationMode.SHARED, slug="acme"):
        """A provisioned tenant."""
        tenant, operation = await self.create(mode, slug)
        await self.run_operation.run(operation, self.executor(await self.lease()))
        return (await self.seen(tenant, operation))[0]

    async def change(self, tenant, verb, change):
        """The tenant as `change` makes it, and a new operation of `verb` on it."""
        now = self.clock.now()
        async with self.catalogue.writing() as tx:
            line = await self.catalogue.tenants.lock_line(tx, tenant.tenant_id)
            saved = await self.catalogue.tenants.save(tx, change(line[-1], now))
            return saved, await self.catalogue.start(tx, verb, owner=None, target=saved, now=now)

    async def closed(self, tenant):
        """The tenant, DELETING, of which the next attempt erases what there is; and its operation."""
        gone = await self.change(tenant, Verb.DELETE, lambda at, now: deleting(at, now, now))
        await self.run_operation.run(gone[1], self.executor(await self.lease()))
        return await self.seen(*gone)

    async def fetch(self, sql, *args):
        """Rows of the control database, as the administrator."""
        connection = await self.installation.connect(None, self.installation.control)
        return await connection.fetch(sql, *args)

    async def seen(self, tenant, operation):
        async with self.catalogue.tenancy.control(PLATFORM, write=False) as tx:
            return (
                await self.catalogue.tenants.by_id(tx, tenant.tenant_id),
                await self.catalogue.operations.get(tx, operation.operation_id),
            )

    async def until_done(self, tenant, operation):
        async with asyncio.timeout(60):
            while True:
                _, at = await self.seen(tenant, operation)
                if at.outcome is not Outcome.RUNNING:
                    # Both change in one transaction, but were read in two: the tenant is read again.
                    return await self.seen(tenant, operation)
                await asyncio.sleep(0.02)
