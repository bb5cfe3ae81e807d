"""Refused calls into the audit log."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from tlsy.tenancy.context import PLATFORM
from tlsy.tenancy.errors import TenancyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlsy.rpc.audit import AuditTrail
    from tlsy.rpc.denials import DeniedCalls
    from tlsy.runtime.ids import TenantId
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


class RecordDenials:
    """From the tenant's own outbox; from the control database's where the tenant takes no writes now."""

    def __init__(self, tenancy: Tenancy, trail: AuditTrail) -> None:
        self._tenancy = tenancy
        self._trail = trail

    async def run(self, denied: Sequence[DeniedCalls]) -> None:
        """Write all of them; what `Denials` is wired with. Raises if the control database is away too."""
        for tenant_id, calls in groupby(
            sorted(denied, key=attrgetter("tenant_id")), key=attrgetter("tenant_id")
        ):
            await self._write(tenant_id, tuple(calls))

    async def _write(self, tenant_id: TenantId, calls: tuple[DeniedCalls, ...]) -> None:
        async def publish(tx: UnitOfWork) -> None:
            epoch = self._tenancy.catalog.tenant(tenant_id).epoch
            for call in calls:
                tx.publish(self._trail.denied(call, epoch))

        try:
            await self._tenancy.run(tenant_id, publish, write=True)
        except TenancyError:
            async with self._tenancy.control(PLATFORM, write=True) as tx:
                for call in calls:
                    tx.publish(self._trail.denied(call, 0))
