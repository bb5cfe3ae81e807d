"""Brings the tables of tenants with a schema or database of their own to what this version needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Gauge

from tlsy.runtime.logging import get_logger
from tlsy.tenancy.context import IsolationMode, Placement, TenantState
from tlsy.tenancy.rollout import Target, hundredth, roll_out
from tlsy.tenant_registry.handlers.upkeep import tenants_in

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from tlsy.runtime.ids import TenantId
    from tlsy.tenancy.database import Databases
    from tlsy.tenancy.lease import Lease
    from tlsy.tenancy.migrations import Schemas
    from tlsy.tenant_registry.domain.tenant import Tenant
    from tlsy.tenant_registry.handlers.catalogue import Catalogue

_PLACED = frozenset({TenantState.ACTIVE, TenantState.SUSPENDED, TenantState.DELETING})


class Upgrade:
    """As tlsy_migrator, under the lease. Whoever is behind is tried again each round, and named.

    A tenant that was seen at its heads is not looked at again: they do not change while a process lives.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        databases: Databases,
        schemas: Schemas,
        control: Placement,
        *,
        percent: int,
        metrics: CollectorRegistry,
    ) -> None:
        self._catalogue = catalogue
        self._databases = databases
        self._schemas = schemas
        self._control = control
        self._percent = percent
        self._up_to_date: set[TenantId] = set()
        self._behind = Gauge(
            "tlsy_tenants_behind", "Tenants with tables of an older version.", registry=metrics
        )
        self._logger = get_logger("registry.upgrade")

    async def run(self, lease: Lease) -> None:
        """One round over those that are, or may be, behind."""
        tenants = {
            each.tenant_id: each
            for each in await tenants_in(self._catalogue, _PLACED)
            if each.isolation_mode is not IsolationMode.SHARED
        }
        self._up_to_date &= tenants.keys()
        targets = [self._target(each) for key, each in tenants.items() if key not in self._up_to_date]
        outcomes = await roll_out(self._databases, targets, control=self._control, lease=lease)
        for outcome in outcomes:
            slug = tenants[outcome.target.tenant_id].slug
            if outcome.error is not None:
                self._logger.error("tenant stays behind", tenant=slug, error=str(outcome.error))
            elif outcome.behind:
                self._logger.info("tenant is held behind", tenant=slug)
            else:
                self._up_to_date.add(outcome.target.tenant_id)
            if outcome.applied:
                self._logger.info("tenant migrated", tenant=slug, revisions=len(outcome.applied))
        self._behind.set(sum(outcome.behind for outcome in outcomes))

    def _target(self, tenant: Tenant) -> Target:
        dedicated = tenant.isolation_mode is IsolationMode.DEDICATED
        schemas = self._schemas
        return Target(
            tenant_id=tenant.tenant_id,
            placement=Placement(tenant.cluster_id, tenant.database, tenant.schema),
            components=schemas.dedicated() if dedicated else schemas.tenant(tenant.schema),
            held=hundredth(tenant.tenant_id) >= self._percent,
        )
