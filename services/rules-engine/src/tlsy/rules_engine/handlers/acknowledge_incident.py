"""Somebody takes an incident on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.rules_engine.domain.incident import acknowledge

if TYPE_CHECKING:
    from uuid import UUID

    from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb
    from tlsy.rpc.call import Call
    from tlsy.rules_engine.handlers.effects import Effects
    from tlsy.rules_engine.handlers.transitions import IncidentTransitions
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


class AcknowledgeIncident:
    """An open incident becomes acknowledged."""

    def __init__(self, *, tenancy: Tenancy, transitions: IncidentTransitions, effects: Effects) -> None:
        self._tenancy = tenancy
        self._transitions = transitions
        self._effects = effects

    async def run(self, call: Call, incident_id: UUID, note: str, etag: str) -> pb.Incident:
        """The incident after it. Raises as `IncidentTransitions.once`."""

        async def work(tx: UnitOfWork) -> pb.Incident:
            return await self._transitions.once(
                tx,
                call,
                incident_id,
                etag=etag,
                change="acknowledged",
                move=lambda incident: acknowledge(
                    incident, str(call.principal), self._effects.now_us(), note
                ),
            )

        return await self._tenancy.run(call.required_tenant().tenant_id, work, write=True)
