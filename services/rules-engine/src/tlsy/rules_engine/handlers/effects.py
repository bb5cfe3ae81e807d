"""What goes along with a change, in its transaction: audit records, events, usage facts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlsy.contracts.cloudevents import CloudEvent
from tlsy.contracts.events import INCIDENT_CHANGED, RULE_CHANGED
from tlsy.contracts.rules_engine.events.v1 import events_pb2
from tlsy.rules_engine.handlers.messages import to_incident

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from google.protobuf.message import Message

    from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb
    from tlsy.rpc.audit import AuditTrail
    from tlsy.rpc.call import Call
    from tlsy.rules_engine.ports import StoredIncident
    from tlsy.runtime.clock import Clock
    from tlsy.runtime.ids import Uuid7
    from tlsy.tenancy.unit_of_work import UnitOfWork

SERVICE: Final = "rules-engine"


class Effects:
    """Writes to the outbox of the transaction at hand; and lends the clock and ids."""

    def __init__(self, trail: AuditTrail, *, clock: Clock, ids: Uuid7) -> None:
        self._trail = trail
        self._clock = clock
        self._ids = ids

    def now(self) -> datetime:
        """Wall-clock time."""
        return self._clock.now()

    def now_us(self) -> int:
        """The same in µs since 1970."""
        return int(self._clock.now().timestamp() * 1_000_000)

    def monotonic(self) -> float:
        """Seconds, for durations."""
        return self._clock.monotonic()

    def new_id(self) -> UUID:
        """A UUIDv7."""
        return self._ids()

    def audit(
        self, tx: UnitOfWork, call: Call, resource: str, details: Mapping[str, object] | None = None
    ) -> None:
        """One record in the tenant's log."""
        tx.publish(
            self._trail.recorded(
                call, resource=resource, tenant_id=tx.tenant_id, epoch=tx.epoch, details=details
            )
        )

    def audit_duty(self, tx: UnitOfWork, duty: str, resource: str, details: Mapping[str, object]) -> None:
        """One record of what this service did by itself."""
        tx.publish(
            self._trail.duty(duty, resource=resource, tenant_id=tx.tenant_id, epoch=tx.epoch, details=details)
        )

    def used(self, tx: UnitOfWork, meter: str, quantity: int, *, sweep_after_s: float = 0) -> None:
        """A usage fact. With `sweep_after_s` it wakes nobody and goes out with the next sweep."""
        fact = self._trail.usage(tx.tenant_id, tx.epoch, meter, quantity)
        tx.publish(fact, sweep_after_s=sweep_after_s)

    def rule_changed(self, tx: UnitOfWork, rule: pb.Rule, rule_set_version: int) -> None:
        """RuleChanged."""
        message = events_pb2.RuleChanged(rule=rule, rule_set_version=rule_set_version)
        self._publish(tx, RULE_CHANGED, message)

    def incident_changed(self, tx: UnitOfWork, stored: StoredIncident, change: str, slug: str) -> None:
        """IncidentChanged; `change` is "opened", "acknowledged" or "resolved"."""
        message = events_pb2.IncidentChanged(incident=to_incident(stored, slug), change=change)
        self._publish(tx, INCIDENT_CHANGED, message)

    def _publish(self, tx: UnitOfWork, event_type: str, message: Message) -> None:
        tx.publish(
            CloudEvent(
                id=self._ids(),
                type=event_type,
                source=SERVICE,
                tenant_id=tx.tenant_id,
                epoch=tx.epoch,
                time=self._clock.now(),
                key=tx.tenant_id.hex,
                data=message.SerializeToString(),
            )
        )
