"""Reads across a tenant's edge: each is in that tenant's audit log before its answer is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tlsy.contracts.options.v1 import options_pb2
from tlsy.tenancy.context import PLATFORM

if TYPE_CHECKING:
    from tlsy.rpc.audit import AuditTrail
    from tlsy.rpc.call import Call
    from tlsy.rpc.methods import Method
    from tlsy.tenancy.unit_of_work import Tenancy


class Crossings(Protocol):
    """Where the interceptor tells of such reads."""

    async def crossed(self, call: Call, resource: str) -> None:
        """Keep that `call` read `resource`. Whatever it raises is answered instead."""
        ...


def crosses(method: Method, call: Call) -> bool:
    """Whether somebody of another tenant reads, and nothing else tells of it."""
    foreign = call.claims is not None and call.claims.actor is not None
    return foreign and method.audit == options_pb2.AUDIT_NONE


class RecordedCrossings:
    """Crossings that write to the control database's outbox: a suspended tenant's are kept too."""

    __slots__ = ("_audit", "_tenancy")

    def __init__(self, tenancy: Tenancy, audit: AuditTrail) -> None:
        self._tenancy = tenancy
        self._audit = audit

    async def crossed(self, call: Call, resource: str) -> None:
        """See `Crossings.crossed`. Raises PlacementUnavailable."""
        tenant = call.required_tenant()
        record = self._audit.recorded(call, resource=resource, tenant_id=tenant.tenant_id, epoch=tenant.epoch)
        async with self._tenancy.control(PLATFORM, write=True) as tx:
            tx.publish(record)
