"""The upkeep of databases: partitions ahead and behind, rows past their retention, probes."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg
from prometheus_client import Gauge

from tlsy.runtime.logging import get_logger
from tlsy.tenancy.context import PLATFORM, IsolationMode, Placement, TenantState
from tlsy.tenancy.errors import TenancyError
from tlsy.tenancy.executor import MAX_RELATIONS, count_relations
from tlsy.tenancy.partitions import delete_before, forget_requests, maintain
from tlsy.tenant_registry.domain.kinds import ClusterKind
from tlsy.tenant_registry.ports import TenantFilter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import CollectorRegistry

    from tlsy.tenancy.database import Databases
    from tlsy.tenant_registry.domain.tenant import Tenant
    from tlsy.tenant_registry.handlers.catalogue import Catalogue

_FAILURES: Final = (TenancyError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
_PAGE: Final = 500
_NOT_GONE: Final = frozenset(TenantState) - {TenantState.DELETED, TenantState.FAILED}
_FIRST_ID: Final = UUID(int=0)
#: The tables whose rows a tenant keeps for its entitlement `retention_days`, and their time column.
_RETAINED: Final = (("events", "ts"), ("incidents", "resolved_at"))


class Upkeep:
    """As tlsy_migrator; every round may be run by several workers at once, and again after a crash."""

    def __init__(
        self,
        catalogue: Catalogue,
        databases: Databases,
        control: Placement,
        keep_operations: timedelta,
        *,
        shared_database: str,
        metrics: CollectorRegistry,
        max_relations: int = MAX_RELATIONS,
    ) -> None:
        self._catalogue = catalogue
        self._databases = databases
        self._control = control
        self._keep_operations = keep_operations
        self._shared_database = shared_database
        self._days_ahead = Gauge(
            "tlsy_partitions_ahead_days",
            "Of the table with the fewest partitions ahead, in all databases that answered.",
            registry=metrics,
        )
        self._max_relations = max_relations
        self._logger = get_logger("registry.upkeep")

    async def maintain_all(self) -> None:
        """One round over every database; one that fails is logged and left for the next round."""
        catalogue = self._catalogue
        now = catalogue.clock.now()
        async with catalogue.writing() as tx:
            await catalogue.operations.forget_ended(tx, now - self._keep_operations)
            clusters = await catalogue.places.clusters(tx)
        tenants = await tenants_in(catalogue, _NOT_GONE)
        common = {
            (each.cluster_id, each.database)
            for each in tenants
            if each.isolation_mode is not IsolationMode.DEDICATED
        }
        # Also where nobody is yet: the first tenant writes at once.
        common |= {
            (each.cluster_id, self._shared_database) for each in clusters if each.kind is ClusterKind.SHARED
        }
        own = {
            (each.cluster_id, each.database)
            for each in tenants
            if each.isolation_mode is IsolationMode.DEDICATED and each.state is not TenantState.PROVISIONING
        }
        control = (self._control.cluster, self._control.database)
        reached = [
            await self._maintain(Placement(cluster, database, ""))
            for cluster, database in (control, *sorted(common), *sorted(own))
        ]
        self._days_ahead.set(min((days for days in reached if days is not None), default=0))
        for cluster, database in sorted(common):
            await self._count_relations(Placement(cluster, database, ""))
        await self._retain(tenants)

    async def probe_clusters(self) -> None:
        """Look whether clusters that did not answer do so again, so that they take tenants again."""
        catalogue = self._catalogue
        async with catalogue.tenancy.control(PLATFORM, write=False) as tx:
            away = [each for each in await catalogue.places.clusters(tx) if not each.reachable]
        for cluster in away:
            try:
                async with self._databases.acquire(
                    Placement(cluster.cluster_id, "postgres", "")
                ) as connection:
                    await connection.execute("select 1", timeout=self._databases.limits.command_timeout_s)
            except _FAILURES:
                continue
            async with catalogue.writing() as tx:
                await catalogue.places.note_reachable(
                    tx, cluster.cluster_id, catalogue.clock.now(), reachable=True
                )

    async def _maintain(self, placement: Placement) -> int | None:
        """Answers how many days ahead there are partitions; None: the database did not answer."""
        now = self._catalogue.clock.now()
        try:
            async with self._databases.acquire(placement) as connection:
                done = await maintain(connection, now.date())
                await forget_requests(connection, now)
        except _FAILURES as error:
            self._logger.warning("not maintained", database=placement.database, error=str(error))
            return None
        for table, problem in done.failed.items():
            self._logger.error("partitions not made", database=placement.database, table=table, error=problem)
        if done.made or done.dropped or done.busy:
            self._logger.info(
                "partitions",
                database=placement.database,
                made=done.made,
                dropped=done.dropped,
                busy=done.busy,
            )
        return done.days_ahead

    async def _count_relations(self, placement: Placement) -> None:
        """Note whether a common database takes further schemas, for who places the next tenant."""
        catalogue = self._catalogue
        try:
            async with self._databases.acquire(placement) as connection:
                relations = await count_relations(connection)
        except _FAILURES as error:
            self._logger.warning("not counted", database=placement.database, error=str(error))
            return
        async with catalogue.writing() as tx:
            await catalogue.places.note_schemas_full(
                tx, placement.cluster, full=relations > self._max_relations
            )

    async def _retain(self, tenants: Iterable[Tenant]) -> None:
        now = self._catalogue.clock.now()
        for tenant in tenants:
            if tenant.state not in {TenantState.ACTIVE, TenantState.SUSPENDED}:
                continue
            before = now - timedelta(days=tenant.entitlements["retention_days"])
            placement = Placement(tenant.cluster_id, tenant.database, tenant.schema)
            try:
                async with self._databases.acquire(placement) as connection:
                    for table, column in _RETAINED:
                        qualified = f"{tenant.schema}.{table}"
                        # A service that has the table need not be installed.
                        with suppress(asyncpg.UndefinedTableError):
                            await delete_before(connection, qualified, column, tenant.tenant_id, before)
            except _FAILURES as error:
                self._logger.warning("retention not applied", tenant=tenant.slug, error=str(error))


async def tenants_in(catalogue: Catalogue, states: frozenset[TenantState]) -> list[Tenant]:
    """Every tenant in one of these states, read page by page."""
    found: list[Tenant] = []
    after = ("", _FIRST_ID)
    while True:
        async with catalogue.tenancy.control(PLATFORM, write=False) as tx:
            page = await catalogue.tenants.page(tx, TenantFilter(states=states), after, _PAGE, once_each=True)
        found += page
        if len(page) < _PAGE:
            return found
        after = (page[-1].slug, page[-1].tenant_id)
