"""One incident with its timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.rules_engine.handlers.transitions import found_incident

if TYPE_CHECKING:
    from uuid import UUID

    from tlsy.rpc.call import Call
    from tlsy.rules_engine.ports import Incidents, StoredIncident
    from tlsy.tenancy.unit_of_work import Tenancy


class GetIncident:
    """Reads."""

    def __init__(self, *, tenancy: Tenancy, incidents: Incidents) -> None:
        self._tenancy = tenancy
        self._incidents = incidents

    async def run(self, call: Call, incident_id: UUID) -> StoredIncident:
        """The incident. Raises NotFound: INCIDENT_NOT_FOUND."""
        tenant_id = call.required_tenant().tenant_id
        return found_incident(
            await self._tenancy.run(tenant_id, lambda tx: self._incidents.get(tx, incident_id), write=False)
        )
