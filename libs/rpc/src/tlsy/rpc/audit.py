"""The records that go out with an effect, in its own transaction: who did what, and what is billed for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from tlsy.contracts import events
from tlsy.contracts.audit_log.events.v1.events_pb2 import AuditRecorded
from tlsy.contracts.billing.events.v1.events_pb2 import UsageRecorded
from tlsy.contracts.cloudevents import CloudEvent
from tlsy.runtime.ids import PLATFORM_TENANT_ID, service_principal
from tlsy.runtime.tracing import ORIGIN, trace_id_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from tlsy.rpc.call import Call
    from tlsy.rpc.denials import DeniedCalls
    from tlsy.runtime.clock import Clock
    from tlsy.runtime.ids import TenantId, Uuid7


class AuditTrail:
    """Makes the events of one service for `tx.publish`; writes nothing itself."""

    __slots__ = ("_clock", "_ids", "_service")

    def __init__(self, service: str, clock: Clock, ids: Uuid7) -> None:
        self._service = service
        self._clock = clock
        self._ids = ids

    def recorded(
        self,
        call: Call,
        *,
        resource: str,
        tenant_id: TenantId,
        epoch: int,
        outcome: str = "OK",
        principal: str | None = None,
        details: Mapping[str, object] | None = None,
    ) -> CloudEvent:
        """What `call` did.

        Args:
            call: who did it.
            resource: the resource name of what it was done to.
            tenant_id: in whose log it is kept; the token's, or for the platform's own doing the tenant's that
                it was done to.
            epoch: of that tenant.
            outcome: "OK" or a reason.
            principal: who did it, where no token says so (a log-in).
            details: what changed; JSON values. No secret, no personal data in clear.
        """
        claims = call.claims
        home = claims.actor.tenant_id if claims is not None and claims.actor is not None else call.tenant_id
        record = AuditRecorded(
            method=call.method,
            principal=principal or call.principal or "",
            principal_tenant_id=str(home) if home is not None and home != tenant_id else "",
            resource=resource,
            outcome=outcome,
            request_id=call.correlation_id,
            trace_id=call.trace_id,
            details=ParseDict(dict(details or {}), Struct()),
            count=1,
        )
        return self._record(record, tenant_id, epoch, self._clock.now(), call.traceparent)

    def duty(
        self,
        name: str,
        *,
        resource: str,
        tenant_id: TenantId,
        epoch: int,
        details: Mapping[str, object] | None = None,
    ) -> CloudEvent:
        """What the service did by itself, e.g. "provision"; the others as for `recorded`.

        It names the request that it goes back to, if there is one.
        """
        origin = ORIGIN.get(None)
        itself = service_principal(self._service)
        record = AuditRecorded(
            method=f"{itself}/{name}",
            principal=itself,
            principal_tenant_id="" if tenant_id == PLATFORM_TENANT_ID else str(PLATFORM_TENANT_ID),
            resource=resource,
            outcome="OK",
            request_id="" if origin is None else origin.correlation_id,
            trace_id="" if origin is None else trace_id_of(origin.traceparent),
            details=ParseDict(dict(details or {}), Struct()),
            count=1,
        )
        return self._record(record, tenant_id, epoch, self._clock.now(), "")

    def denied(self, denied: DeniedCalls, epoch: int) -> CloudEvent:
        """Calls that were refused, as `Denials` hands them over."""
        foreign = denied.home_tenant_id != denied.tenant_id
        record = AuditRecorded(
            method=denied.method,
            principal=denied.principal,
            principal_tenant_id=str(denied.home_tenant_id) if foreign else "",
            resource=denied.resource,
            outcome=denied.reason,
            count=denied.count,
        )
        return self._record(record, denied.tenant_id, epoch, denied.first_time, "")

    def usage(
        self, tenant_id: TenantId, epoch: int, meter: str, quantity: int, traceparent: str = ""
    ) -> CloudEvent:
        """`quantity` more of `meter` was used, e.g. "events.accepted"."""
        now = self._clock.now()
        fact_id = self._ids()
        fact = UsageRecorded(fact_id=str(fact_id), tenant_id=str(tenant_id), meter=meter, quantity=quantity)
        fact.time.FromDatetime(now)
        kind = events.usage_recorded(self._service)
        return CloudEvent(
            id=fact_id,
            type=kind,
            source=self._service,
            tenant_id=tenant_id,
            epoch=epoch,
            time=now,
            key=tenant_id.hex,
            data=fact.SerializeToString(),
            traceparent=traceparent,
        )

    def _record(
        self, record: AuditRecorded, tenant_id: TenantId, epoch: int, time: datetime, traceparent: str
    ) -> CloudEvent:
        record_id = self._ids()
        record.record_id = str(record_id)
        record.tenant_id = str(tenant_id)
        record.time.FromDatetime(time)
        return CloudEvent(
            id=record_id,
            type=events.audit_recorded(self._service),
            source=self._service,
            tenant_id=tenant_id,
            epoch=epoch,
            time=time,
            key=tenant_id.hex,
            data=record.SerializeToString(),
            traceparent=traceparent,
        )
