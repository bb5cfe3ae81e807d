"""Somebody says that an incident is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.rules_engine.domain.incident import resolve

if TYPE_CHECKING:
    from uuid import UUID

    from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb
    from tlsy.rpc.call import Call
    from tlsy.rules_engine.handlers.effects import Effects
    from tlsy.rules_engine.handlers.transitions import IncidentTransitions
    from tlsy.rules_engine.ports import Rules
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


class ResolveIncident:
    """An incident becomes resolved; if its rule fires again soon it opens again, later another one does."""

    def __init__(
        self, *, tenancy: Tenancy, rules: Rules, transitions: IncidentTransitions, effects: Effects
    ) -> None:
        self._tenancy = tenancy
        self._rules = rules
        self._transitions = transitions
        self._effects = effects

    async def run(self, call: Call, incident_id: UUID, note: str, etag: str) -> pb.Incident:
        """The incident after it. Raises as `IncidentTransitions.once`."""

        async def work(tx: UnitOfWork) -> pb.Incident:
            # Before the incident's lock, in the order in which an evaluation takes both.
            await self._rules.lock_set(tx)
            return await self._transitions.once(
                tx,
                call,
                incident_id,
                etag=etag,
                change="resolved",
                move=lambda incident: resolve(incident, str(call.principal), self._effects.now_us(), note),
            )

        return await self._tenancy.run(call.required_tenant().tenant_id, work, write=True)
