"""Incidents of the tenant, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from tlsy.rpc.call import Call
    from tlsy.rules_engine.ports import IncidentFilter, Incidents, StoredIncident
    from tlsy.tenancy.unit_of_work import Tenancy


class ListIncidents:
    """Reads, newest first."""

    def __init__(self, *, tenancy: Tenancy, incidents: Incidents) -> None:
        self._tenancy = tenancy
        self._incidents = incidents

    async def run(
        self, call: Call, wanted: IncidentFilter, after: UUID, size: int
    ) -> tuple[Sequence[StoredIncident], bool]:
        """At most `size` older than `after`, and whether there are more."""
        found = await self._tenancy.run(
            call.required_tenant().tenant_id,
            lambda tx: self._incidents.page(tx, wanted, after, size + 1),
            write=False,
        )
        return found[:size], len(found) > size
