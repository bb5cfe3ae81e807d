"""A control database and a common one on a test server, with tenants in any isolation mode."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg

from tlsy.runtime.clock import SystemClock
from tlsy.runtime.ids import PLATFORM_TENANT_ID, Slug, TenantId
from tlsy.tenancy.catalog import TenantEntry
from tlsy.tenancy.cluster import (
    MIGRATOR,
    RELAY,
    connect_grants,
    create_database,
    create_roles,
    install_database,
)
from tlsy.tenancy.context import (
    DEDICATED_SCHEMA,
    SHARED_SCHEMA,
    IsolationMode,
    Placement,
    TenantState,
    tenant_schema,
)
from tlsy.tenancy.database import Databases, PoolLimits
from tlsy.tenancy.executor import Executor, drop_templates
from tlsy.tenancy.lease import take_lease
from tlsy.tenancy.migrations import Schemas
from tlsy.tenancy.provisioning import DesiredState, DesiredTenant
from tlsy.tenancy.unit_of_work import Tenancy
from tlsy.testkit.catalog import StaticCatalog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from datetime import date

    from tlsy.tenancy.database import ClusterAddress, Connection
    from tlsy.tenancy.migrations import ServiceMigrations
    from tlsy.testkit.postgres import PostgresServer

CLUSTER: Final = "local"
#: For pools that run DDL.
#: The service's own limits, but for a connection that a busy machine is slow to make.
UNHURRIED: Final = PoolLimits(connect_timeout_s=30, acquire_timeout_s=60)
PATIENT: Final = PoolLimits(statement_timeout_s=60, lock_timeout_s=30, per_database=8)


class Templates:
    """An installed control and common database, made once per server and set of services, to be copied."""

    def __init__(self, server: PostgresServer, services: Sequence[ServiceMigrations]) -> None:
        self.server = server
        self.schemas = Schemas(services)
        self._prefix = f"tk_{secrets.token_hex(4)}"
        self._copies = 0
        self._built_on: date | None = None

    @property
    def control(self) -> str:
        """The database that control databases are copied from."""
        return f"{self._prefix}_control"

    @property
    def common(self) -> str:
        """The database that common databases are copied from."""
        return f"{self._prefix}_common"

    @property
    def built_on(self) -> date:
        """The day that their partitions are around."""
        if self._built_on is None:
            raise RuntimeError("they are not built")
        return self._built_on

    async def build(self) -> None:
        """Make roles and both templates; a service of earlier templates keeps its role."""
        services, today = self.schemas.services, datetime.now(UTC).date()
        self._built_on = today
        roles = [MIGRATOR, "tlsy_mover", RELAY, *(service.role for service in services)]
        administrator = await connect(self.server.address(), "postgres")
        try:
            await create_roles(administrator, services, dict.fromkeys(roles, self.server.password))
        finally:
            await administrator.close()
        databases = Databases({CLUSTER: self.server.address(MIGRATOR)}, PATIENT, SystemClock())
        try:
            for name, components in (
                (self.control, self.schemas.control()),
                (self.common, self.schemas.common()),
            ):
                await install_database(databases, Placement(CLUSTER, name, ""), components, services, today)
        finally:
            await databases.close()

    async def drop(self) -> None:
        """Remove both templates, and that of DEDICATED tenants; roles stay on a server that is not ours."""
        maintenance = await connect(self.server.address(MIGRATOR), "postgres")
        try:
            for name in (self.control, self.common):
                await maintenance.execute(f"drop database if exists {name} with (force)")
            await drop_templates(maintenance)
        finally:
            await maintenance.close()

    @asynccontextmanager
    async def installation(self) -> AsyncIterator[Installation]:
        """A fresh copy of both databases, dropped afterwards with every database of its tenants."""
        self._copies += 1
        control, common = f"{self.control}_{self._copies}", f"{self.common}_{self._copies}"
        await self._copy({control: self.control, common: self.common})
        installation = Installation(self.server, self.schemas, control, common, self.built_on)
        try:
            yield installation
        finally:
            await installation.close()
            dedicated = [entry.placement.database for entry in installation.dedicated]
            await self._drop(control, common, *dedicated)

    async def _copy(self, templates: Mapping[str, str]) -> None:
        """Database to the template that it is made of."""
        maintenance = await connect(self.server.address(MIGRATOR), "postgres")
        try:
            for name, template in templates.items():
                await create_database(maintenance, name, template)
                await maintenance.execute(connect_grants(name, self.schemas.services))
        finally:
            await maintenance.close()

    async def _drop(self, *databases: str) -> None:
        maintenance = await connect(self.server.address(MIGRATOR), "postgres")
        try:
            for name in databases:
                await maintenance.execute(f"drop database if exists {name} with (force)")
        finally:
            await maintenance.close()


class Installation:
    """The databases of one test. Connections that it hands out are closed with it.

    `catalog` knows every tenant that was made here. Services see only their own role. `built_on` is the day
    that the partitions in `control` and `common` are around; it may be over.
    """

    def __init__(
        self, server: PostgresServer, schemas: Schemas, control: str, common: str, built_on: date
    ) -> None:
        self.server = server
        self.schemas = schemas
        self.built_on = built_on
        self.control = Placement(CLUSTER, control, "")
        self.common = Placement(CLUSTER, common, SHARED_SCHEMA)
        self.catalog = StaticCatalog()
        self.dedicated: list[TenantEntry] = []
        self._databases: list[Databases] = []
        self._connections: list[Connection] = []
        self._executor: Executor | None = None

    def databases(self, role: str, limits: PoolLimits | None = None) -> Databases:
        """Pools that connect as `role`, e.g. "tlsy_ingestion"."""
        made = Databases({CLUSTER: self.server.address(role)}, limits or UNHURRIED, SystemClock())
        self._databases.append(made)
        return made

    def tenancy(
        self,
        package: str,
        limits: PoolLimits | None = None,
        *,
        wake: Callable[[Placement], None] | None = None,
    ) -> Tenancy:
        """Transactions of a service, as its own role; `package` as in "rules_engine"."""
        return Tenancy(
            package=package,
            databases=self.databases(f"tlsy_{package}", limits),
            catalog=self.catalog,
            control=self.control,
            wake=wake,
        )

    async def connect(self, role: str | None, placement: Placement) -> Connection:
        """A connection of one's own as a role (None: the administrator), outside any tenant."""
        connection = await connect(self.server.address(role), placement.database)
        self._connections.append(connection)
        return connection

    async def executor(self) -> Executor:
        """Carries out provisioning actions as tlsy_migrator, holding a lease."""
        if self._executor is None:
            databases = self.databases(MIGRATOR, PATIENT)
            async with databases.acquire(self.control) as connection:
                lease = await take_lease(connection, "provisioner", "testkit", 3600)
            if lease is None:
                raise RuntimeError("somebody else provisions in this installation")
            self._executor = Executor(
                databases=databases,
                control=self.control,
                schemas=self.schemas,
                lease=lease,
                clock=SystemClock(),
            )
        return self._executor

    async def provisioned_tenant(
        self, mode: IsolationMode = IsolationMode.SHARED, slug: str | None = None, **changes: Any
    ) -> TenantEntry:
        """An ACTIVE tenant with a placement of this mode, known to the catalogue.

        `changes` replace fields of its entry, e.g. modules or entitlements; by default none are given.
        """
        entry = self._entry(TenantId(UUID(bytes=secrets.token_bytes(16), version=4)), mode, slug)
        entry = replace(entry, **changes)
        if mode is IsolationMode.DEDICATED:
            self.dedicated.append(entry)
        await self.converge(entry, DesiredState.ACTIVE)
        self.catalog.put(entry)
        return entry

    async def platform_tenant(self) -> TenantEntry:
        """The provider's own tenant, SHARED, under its fixed id."""
        return await self.provisioned_tenant(slug="platform", tenant_id=PLATFORM_TENANT_ID)

    async def converge(self, entry: TenantEntry, state: DesiredState) -> None:
        """Make the tenant's placement what it should be, e.g. suspend it (with a higher epoch)."""
        executor = await self.executor()
        await executor.converge(
            DesiredTenant(
                tenant_id=entry.tenant_id,
                mode=entry.mode,
                placement=entry.placement,
                epoch=entry.epoch,
                state=state,
            )
        )

    async def close(self) -> None:
        """Close every connection that was handed out."""
        for connection in self._connections:
            await connection.close(timeout=10)
        await asyncio.gather(*(databases.close() for databases in self._databases))

    def _entry(self, tenant_id: TenantId, mode: IsolationMode, slug: str | None) -> TenantEntry:
        name = tenant_schema(tenant_id)
        placements = {
            IsolationMode.SHARED: self.common,
            IsolationMode.SCHEMA: replace(self.common, schema=name),
            IsolationMode.DEDICATED: Placement(CLUSTER, name, DEDICATED_SCHEMA),
        }
        return TenantEntry(
            tenant_id=tenant_id,
            slug=Slug(slug or f"t-{tenant_id.hex[:12]}"),
            parent_id=None,
            ancestors=(),
            country="fr",
            state=TenantState.ACTIVE,
            epoch=1,
            mode=mode,
            placement=placements[mode],
            modules=frozenset(),
            entitlements={},
            version=1,
            sector_profile="sme",
            time_zone="Europe/Paris",
        )


async def connect(address: ClusterAddress, database: str) -> Connection:
    """One connection outside any pool, with a deadline of a minute for each statement."""
    return await asyncpg.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password,
        database=database,
        ssl=False,
        timeout=60,
        command_timeout=60,
    )
