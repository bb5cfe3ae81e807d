"""How somebody moves an incident on: the same for acknowledging and resolving."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb
from tlsy.rpc.errors import FailedPrecondition, NotFound
from tlsy.rpc.etags import check_etag
from tlsy.rpc.idempotency import answer_once
from tlsy.rules_engine.domain.incident import IllegalTransition
from tlsy.rules_engine.handlers.messages import incident_etag, to_incident

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from tlsy.rpc.call import Call
    from tlsy.rules_engine.domain.incident import Incident
    from tlsy.rules_engine.handlers.effects import Effects
    from tlsy.rules_engine.ports import Incidents, StoredIncident
    from tlsy.tenancy.unit_of_work import UnitOfWork


class IncidentTransitions:
    """Stores a transition with its audit record and its event. Under the incident's lock."""

    def __init__(self, incidents: Incidents, effects: Effects) -> None:
        self._incidents = incidents
        self._effects = effects

    async def once(
        self,
        tx: UnitOfWork,
        call: Call,
        incident_id: UUID,
        *,
        etag: str,
        change: str,
        move: Callable[[Incident], Incident | IllegalTransition],
    ) -> pb.Incident:
        """The incident after `move`; `change` is what the event says. A repeated request is not a second one.

        An incident that ends is cleared from the engine, so that its rule can open another.

        Raises:
            NotFound: INCIDENT_NOT_FOUND.
            Aborted: ETAG_MISMATCH.
            FailedPrecondition: the domain's reasons, e.g. ALREADY_RESOLVED.
        """

        async def act() -> pb.Incident:
            stored = found_incident(await self._incidents.lock(tx, incident_id))
            check_etag(etag, incident_etag(stored))
            moved = move(stored.incident)
            if isinstance(moved, IllegalTransition):
                text = f"The incident is {moved.state.value.lower()}."
                raise FailedPrecondition(moved.reason.value, text)
            ended = moved.resolved_us is not None
            after = replace(
                stored,
                incident=moved,
                firing_groups=0 if ended else stored.firing_groups,
                clear_pending=ended,
                revision=stored.revision + 1,
            )
            await self._incidents.put(tx, [after])
            if ended:
                await self._incidents.ask_clear(tx)
            slug = call.required_tenant().slug
            message = to_incident(after, slug)
            self._effects.incident_changed(tx, after, change, slug)
            self._effects.audit(tx, call, message.name, {"change": change})
            return message

        return await answer_once(tx, call, self._effects.now(), pb.Incident, act)


def found_incident(stored: StoredIncident | None) -> StoredIncident:
    """The incident. Raises NotFound: INCIDENT_NOT_FOUND."""
    if stored is None:
        raise NotFound("INCIDENT_NOT_FOUND", "There is no such incident; list them with ListIncidents.")
    return stored
