"""Observing placements and carrying out provisioning actions, as tlsy_migrator.

Each action is done while the worker's lease is held under its fencing token; a worker that lost its lease is
refused before it changes anything. Nothing here decides: see `provisioning`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, assert_never

import asyncpg

from tlsy.tenancy.cluster import MAINTENANCE_DATABASE, connect_grants, create_database
from tlsy.tenancy.context import IsolationMode, Placement
from tlsy.tenancy.errors import OutboxNotDrained, PlacementFull
from tlsy.tenancy.lease import hold
from tlsy.tenancy.migrations import TEXT_TIMEOUT_S, batch, migrate, pending, versions
from tlsy.tenancy.partitions import make_partitions
from tlsy.tenancy.provisioning import (
    Action,
    Admit,
    AwaitRelay,
    CreateDatabase,
    CreateSchema,
    DesiredState,
    DesiredTenant,
    DropDatabase,
    DropSchema,
    EraseRows,
    Fence,
    FenceState,
    Migrate,
    ObservedTenant,
    OpenDatabase,
    Plane,
    RemoveFence,
    SetFence,
    is_made,
    plan,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tlsy.runtime.clock import Clock
    from tlsy.runtime.ids import TenantId
    from tlsy.tenancy.database import Connection, Databases
    from tlsy.tenancy.lease import Lease
    from tlsy.tenancy.migrations import Component, Schemas

_ERASE_BATCH: Final = 5_000
_TEMPLATE_PREFIX: Final = "tlsy_template_"
_MAX_ROUNDS: Final = 5
#: Of tables and indexes in one database; beyond it planning, dumps and connecting get slow.
MAX_RELATIONS: Final = 200_000
_FENCE: Final = "select epoch, state from tlsy.fence where tenant_id = $1"
_FENCE_AND_SCHEMA: Final = """
select f.epoch, f.state, to_regnamespace($2) is not null as schema
from (select) as always left join tlsy.fence f on f.tenant_id = $1
"""
#: A limit of -2 is PostgreSQL's mark of a drop that was begun: it can only be dropped again.
_DATABASE: Final = """
select case when datconnlimit <> -2 then not has_database_privilege('public', oid, 'connect') end as opened
from pg_database where datname = $1
"""
_TEMPLATES: Final = """
select datname as name, datistemplate as is_template, datconnlimit = -2 as half_dropped
from pg_database where starts_with(datname, $1)
"""
_OCCUPIED: Final = "select tlsy.occupied($1, $2) limit 1"
_UNPUBLISHED: Final = "select tlsy.unpublished($1, $2) limit 1"


class Executor:
    """Makes placements what they should be.

    Args:
        databases: connects as tlsy_migrator; its statement timeout must suit DDL.
        control: the control database.
        schemas: what belongs into placements.
        lease: the worker's, taken in the control database.
        kept_in_control: schemas of the control database whose rows outlive an erased tenant: the catalogue.
        max_relations: a database with more tables and indexes than this takes no further schema.
    """

    def __init__(
        self,
        *,
        databases: Databases,
        control: Placement,
        schemas: Schemas,
        lease: Lease,
        clock: Clock,
        kept_in_control: Sequence[str] = (),
        max_relations: int = MAX_RELATIONS,
    ) -> None:
        self._databases = databases
        self._control = control
        self._schemas = schemas
        self._lease = lease
        self._clock = clock
        self._kept_in_control = list(kept_in_control)
        self._max_relations = max_relations
        self._dedicated = schemas.dedicated()
        digest = hashlib.sha256(batch(self._dedicated).encode()).hexdigest()
        self._template = f"{_TEMPLATE_PREFIX}{digest[:16]}"

    async def converge(
        self, desired: DesiredTenant, progress: Callable[[Action], Awaitable[None]] | None = None
    ) -> tuple[Action, ...]:
        """Observe, plan and execute until nothing is left to do; answers what was done.

        `progress` is told each action before it starts. Raises LeaseLost, PlacementUnavailable,
        PlacementFull, OutboxNotDrained, MigrationFailed, asyncpg.PostgresError; whatever was done stays, and
        calling again goes on from there. ValueError: the placement is at a version that is not known here;
        only where something is left to provide.
        """
        done: list[Action] = []
        for _ in range(_MAX_ROUNDS):
            actions = plan(desired, await self.observe(desired))
            if not actions:
                return tuple(done)
            for action in actions:
                if progress is not None:
                    await progress(action)
                await self.execute(desired, action)
                done.append(action)
        raise RuntimeError(f"{desired.tenant_id} does not converge: {actions}")

    async def observe(self, desired: DesiredTenant) -> ObservedTenant:
        """What there is of this tenant, in its placement and in the control database."""
        async with self._databases.acquire(self._control) as control:
            control_fence = _fence(await control.fetchrow(_FENCE, desired.tenant_id))
            control_occupied, control_unpublished = await _rows(control, desired, self._kept_in_control)
        exists, opened = await self._database(desired)
        if opened is None:
            return ObservedTenant(
                database=exists,
                schema=False,
                outdated=False,
                opened=False,
                fence=None,
                control_fence=control_fence,
                control_occupied=control_occupied,
                control_unpublished=control_unpublished,
            )
        async with self._databases.acquire(desired.placement) as connection:
            found = await connection.fetchrow(_FENCE_AND_SCHEMA, desired.tenant_id, desired.placement.schema)
            fence = _fence(found)
            occupied, unpublished = await _rows(connection, desired, [])
            providing = desired.state is not DesiredState.ERASED and not is_made(
                desired, fence, control_fence
            )
            return ObservedTenant(
                database=True,
                schema=found is not None and found["schema"],
                outdated=providing and await self._outdated(connection, desired),
                opened=opened,
                fence=fence,
                control_fence=control_fence,
                occupied=occupied,
                control_occupied=control_occupied,
                unpublished=unpublished,
                control_unpublished=control_unpublished,
            )

    async def execute(self, desired: DesiredTenant, action: Action) -> None:
        """Carry out one action under the lease. Doing it again changes nothing."""
        async with self._databases.acquire(self._control) as control, hold(control, self._lease):
            match action:
                case CreateDatabase() | OpenDatabase() | DropDatabase():
                    await self._on_database(desired, action)
                case CreateSchema() | Migrate() | Admit() | DropSchema():
                    async with self._databases.acquire(desired.placement) as connection:
                        await self._on_tables(desired, action, connection)
                case SetFence() | AwaitRelay() | EraseRows() | RemoveFence():
                    placement = self._control if action.plane is Plane.CONTROL else desired.placement
                    async with self._databases.acquire(placement) as connection:
                        await self._on_rows(desired, action, connection)
                case _:
                    assert_never(action)

    async def ensure_template(self, cluster: str) -> str:
        """Make the template of DEDICATED databases on a cluster, unless it is there; answers its name.

        Its name carries a digest of its text: another head is another template, and former ones are removed.
        """
        async with self._databases.acquire(Placement(cluster, MAINTENANCE_DATABASE, "")) as maintenance:
            await maintenance.execute("select pg_advisory_lock(hashtext('tlsy.template'), 0)")
            try:
                if not await drop_templates(maintenance, but=self._template):
                    await self._make_template(cluster, maintenance)
            finally:
                await maintenance.execute("select pg_advisory_unlock(hashtext('tlsy.template'), 0)")
        return self._template

    async def _make_template(self, cluster: str, maintenance: Connection) -> None:
        building = Placement(cluster, f"{_TEMPLATE_PREFIX}building", "")
        await maintenance.execute(f"drop database if exists {building.database} with (force)")
        await create_database(maintenance, building.database)
        async with self._databases.acquire(building) as connection:
            await migrate(connection, self._dedicated)
        await self._databases.drop_idle(building)
        await maintenance.execute(f"alter database {building.database} rename to {self._template}")
        await maintenance.execute(
            f"alter database {self._template} with is_template true allow_connections false"
        )

    async def _database(self, desired: DesiredTenant) -> tuple[bool, bool | None]:
        """Whether the placement's database exists, and whether services may connect to it.

        None if there is nothing to look at; also where dropping it was interrupted: nobody may connect then.
        """
        if not desired.placed:
            return False, None
        if desired.mode is not IsolationMode.DEDICATED:
            return True, True
        placement = desired.placement
        async with self._databases.acquire(
            Placement(placement.cluster, MAINTENANCE_DATABASE, "")
        ) as connection:
            found = await connection.fetchrow(_DATABASE, placement.database)
            return found is not None, None if found is None else found["opened"]

    async def _outdated(self, connection: Connection, desired: DesiredTenant) -> bool:
        components = self._components(desired)
        if not components:
            return False
        current = await versions(connection, {component.schema for component in components})
        return any(pending(c, current.get((c.name, c.schema))) for c in components)

    def _components(self, desired: DesiredTenant) -> Sequence[Component]:
        if desired.mode is IsolationMode.DEDICATED:
            return self._dedicated
        if desired.mode is IsolationMode.SCHEMA:
            return self._schemas.tenant(desired.placement.schema)
        return ()

    async def _on_database(
        self, desired: DesiredTenant, action: CreateDatabase | OpenDatabase | DropDatabase
    ) -> None:
        placement = desired.placement
        maintenance = Placement(placement.cluster, MAINTENANCE_DATABASE, "")
        match action:
            case CreateDatabase():
                async with self._databases.acquire(maintenance) as connection:
                    try:
                        await create_database(connection, placement.database, self._template)
                    except (asyncpg.InvalidCatalogNameError, asyncpg.ObjectNotInPrerequisiteStateError):
                        await self.ensure_template(placement.cluster)
                        await create_database(connection, placement.database, self._template)
            case OpenDatabase():
                async with self._databases.acquire(placement) as connection:
                    await make_partitions(connection, self._clock.now().date(), first=True)
                    await connection.execute(connect_grants(placement.database, self._schemas.services))
            case DropDatabase():
                await self._databases.drop_idle(placement)
                async with self._databases.acquire(maintenance) as connection:
                    await connection.execute(f"drop database if exists {placement.database} with (force)")

    async def _on_tables(
        self,
        desired: DesiredTenant,
        action: CreateSchema | Migrate | Admit | DropSchema,
        connection: Connection,
    ) -> None:
        schema = desired.placement.schema
        match action:
            case CreateSchema():
                await self._refuse_when_full(desired.placement, connection)
                text = f"begin;\n{batch(self._schemas.tenant(schema))}commit;"
                await connection.execute(text, timeout=TEXT_TIMEOUT_S)
            case Migrate():
                await migrate(connection, self._components(desired))
            case Admit(fence=fence):
                reference = "\n;".join(service.reference for service in self._schemas.services)
                await connection.execute(
                    f"begin;set local search_path = {schema};"
                    f"select set_config('app.current_tenant', '{desired.tenant_id}', true);{reference}\n;"
                    f"select tlsy.set_fence('{desired.tenant_id}', {fence.epoch:d}, {_admits(fence)}, "
                    f"'{fence.state}', '{schema}');commit"
                )
            case DropSchema():
                await connection.execute("select tlsy.drop_schema($1)", schema)

    async def _on_rows(
        self,
        desired: DesiredTenant,
        action: SetFence | AwaitRelay | EraseRows | RemoveFence,
        connection: Connection,
    ) -> None:
        in_control = action.plane is Plane.CONTROL
        keep = self._kept_in_control if in_control else []
        match action:
            case SetFence(fence=fence):
                schema = None if in_control else desired.placement.schema
                await _set_fence(connection, desired.tenant_id, fence, schema)
            case AwaitRelay():
                waiting = await connection.fetchval(_UNPUBLISHED, desired.tenant_id, keep)
                if waiting is not None:
                    raise OutboxNotDrained(waiting)
            case EraseRows():
                while await connection.fetchval(
                    "select tlsy.erase_batch($1, $2, $3)", desired.tenant_id, _ERASE_BATCH, keep
                ):
                    pass
            case RemoveFence():
                await connection.execute("select tlsy.remove_fence($1)", desired.tenant_id)

    async def _refuse_when_full(self, placement: Placement, connection: Connection) -> None:
        relations = await count_relations(connection)
        if relations > self._max_relations:
            raise PlacementFull(placement, f"{relations} relations")


async def count_relations(connection: Connection) -> int:
    """How many tables, indexes and the like a database has."""
    return int(await connection.fetchval("select count(*) from pg_class"))


async def drop_templates(maintenance: Connection, *, but: str | None = None) -> bool:
    """Remove the templates of DEDICATED databases from a server; whoever needs one makes it again.

    Answers whether the one called `but` is there, and whole.
    """
    kept = False
    for template in await maintenance.fetch(_TEMPLATES, _TEMPLATE_PREFIX):
        name = template["name"]
        if name == but and not template["half_dropped"]:
            kept = True
            continue
        if template["is_template"]:
            await maintenance.execute(f"alter database {name} is_template false")
        await maintenance.execute(f"drop database if exists {name} with (force)")
    return kept


async def _set_fence(connection: Connection, tenant_id: TenantId, fence: Fence, schema: str | None) -> None:
    await connection.execute(
        "select tlsy.set_fence($1, $2, $3, $4, $5)",
        tenant_id,
        fence.epoch,
        _admits(fence),
        fence.state.value,
        schema,
    )


async def _rows(connection: Connection, desired: DesiredTenant, keep: Sequence[str]) -> tuple[bool, bool]:
    """Whether rows of a tenant that is to be erased are there, and unpublished ones."""
    if desired.state is not DesiredState.ERASED:
        return False, False
    occupied = await connection.fetchval(_OCCUPIED, desired.tenant_id, keep)
    unpublished = await connection.fetchval(_UNPUBLISHED, desired.tenant_id, keep)
    return occupied is not None, unpublished is not None


def _fence(row: asyncpg.Record | None) -> Fence | None:
    return None if row is None or row["epoch"] is None else Fence(row["epoch"], FenceState(row["state"]))


def _admits(fence: Fence) -> bool:
    """Writes."""
    return fence.state is FenceState.ACTIVE
