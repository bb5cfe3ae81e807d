"""How much of the month's quota a tenant has used, as the database has it now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.ingestion.domain.meter import month_start, quota_of

if TYPE_CHECKING:
    from datetime import date

    from tlsy.ingestion.domain.limits import Quota
    from tlsy.ingestion.ports import EventStore, MonthCount
    from tlsy.runtime.clock import Clock
    from tlsy.tenancy.catalog import TenantEntry
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


class GetIngestUsage:
    """Reads the count of all replicas, not the one that this replica keeps in memory."""

    def __init__(self, *, tenancy: Tenancy, store: EventStore, clock: Clock) -> None:
        self._tenancy = tenancy
        self._store = store
        self._clock = clock

    async def run(self, tenant: TenantEntry) -> tuple[date, MonthCount, Quota]:
        """The month, what it has, and what it may have."""
        month, quota = month_start(self._clock.now()), quota_of(tenant.entitlements)

        async def read(tx: UnitOfWork) -> MonthCount:
            return await self._store.read_month(tx, month, quota.events)

        return month, await self._tenancy.run(tenant.tenant_id, read, write=False), quota
