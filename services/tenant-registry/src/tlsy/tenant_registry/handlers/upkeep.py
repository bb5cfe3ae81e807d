"""The upkeep of databases: partitions ahead and behind, rows past a tenant's retention, probes."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg

from tlsy.runtime.logging import get_logger
from tlsy.tenancy.context import PLATFORM, IsolationMode, Placement, TenantState
from tlsy.tenancy.errors import TenancyError
from tlsy.tenancy.partitions import delete_before, maintain
from tlsy.tenant_registry.ports import TenantFilter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tlsy.tenancy.database import Databases
    from tlsy.tenant_registry.domain.tenant import Tenant
    from tlsy.tenant_registry.handlers.catalogue import Catalogue

_FAILURES: Final = (TenancyError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
_PAGE: Final = 500
_FIRST_ID: Final = UUID(int=0)
#: The tables whose rows a tenant keeps for its entitlement `retention_days`, and their time column.
_RETAINED: Final = (("events", "ts"), ("incidents", "resolved_at"))


class Upkeep:
    """As tlsy_migrator; every round may be run by several workers at once, and again after a crash."""

    def __init__(
        self, catalogue: Catalogue, databases: Databases, control: Placement, keep_operations: timedelta
    ) -> None:
        self._catalogue = catalogue
        self._databases = databases
        self._control = control
        self._keep_operations = keep_operations
        self._logger = get_logger("registry.upkeep")

    async def maintain_all(self) -> None:
        """One round over every database; one that fails is logged and left for the next round."""
        catalogue = self._catalogue
        now = catalogue.clock.now()
        async with catalogue.writing() as tx:
            await catalogue.operations.forget_ended(tx, now - self._keep_operations)
        tenants = await self._tenants()
        common = {
            (each.cluster_id, each.database)
            for each in tenants
            if each.isolation_mode is not IsolationMode.DEDICATED
        }
        own = {
            (each.cluster_id, each.database)
            for each in tenants
            if each.isolation_mode is IsolationMode.DEDICATED and each.state is not TenantState.PROVISIONING
        }
        for cluster, database in (
            (self._control.cluster, self._control.database),
            *sorted(common),
            *sorted(own),
        ):
            await self._maintain(Placement(cluster, database, ""))
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

    async def _maintain(self, placement: Placement) -> None:
        try:
            async with self._databases.acquire(placement) as connection:
                done = await maintain(connection, self._catalogue.clock.now().date())
        except _FAILURES as error:
            self._logger.warning("not maintained", database=placement.database, error=str(error))
            return
        if done.made or done.dropped or done.busy:
            self._logger.info(
                "partitions",
                database=placement.database,
                made=done.made,
                dropped=done.dropped,
                busy=done.busy,
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

    async def _tenants(self) -> list[Tenant]:
        found: list[Tenant] = []
        wanted = TenantFilter(states=frozenset(TenantState) - {TenantState.DELETED, TenantState.FAILED})
        after = ("", _FIRST_ID)
        while True:
            async with self._catalogue.tenancy.control(PLATFORM, write=False) as tx:
                page = await self._catalogue.tenants.page(tx, wanted, after, _PAGE, once_each=True)
            found += page
            if len(page) < _PAGE:
                return found
            after = (page[-1].slug, page[-1].tenant_id)
