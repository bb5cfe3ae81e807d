"""What goes along with a change of the directory, in its transaction: audit records, revocations, replays."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from tlsy.contracts.cloudevents import CloudEvent
from tlsy.contracts.events import PRINCIPAL_REVOKED
from tlsy.contracts.identity.events.v1 import events_pb2
from tlsy.identity.domain.revocations import revoke
from tlsy.tenancy.context import Platform
from tlsy.tenancy.unit_of_work import IdempotentRequest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from google.protobuf.message import Message

    from tlsy.identity.domain.revocations import Cause
    from tlsy.identity.handlers.indexing import IndexRevocations
    from tlsy.identity.ports import Directories, KeyedHash
    from tlsy.rpc.audit import AuditTrail
    from tlsy.rpc.call import Call
    from tlsy.runtime.clock import Clock
    from tlsy.runtime.ids import Uuid7
    from tlsy.tenancy.unit_of_work import UnitOfWork

SERVICE: Final = "identity"
_REPLAYED_FOR: Final = timedelta(hours=24)


class Effects:
    """Writes to the outbox and the idempotency table of the transaction at hand."""

    def __init__(
        self,
        directories: Directories,
        trail: AuditTrail,
        indexing: IndexRevocations,
        *,
        keyed: KeyedHash,
        clock: Clock,
        ids: Uuid7,
        longest_token: timedelta,
    ) -> None:
        self._directories = directories
        self._trail = trail
        self._indexing = indexing
        self._keyed = keyed
        self._clock = clock
        self._ids = ids
        self._longest_token = longest_token

    def now(self) -> datetime:
        """Wall-clock time."""
        return self._clock.now()

    def new_id(self) -> UUID:
        """A UUIDv7."""
        return self._ids()

    def audit(
        self,
        tx: UnitOfWork,
        call: Call,
        *,
        resource: str,
        outcome: str = "OK",
        principal: str | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        """One record in the log of the transaction's tenant; no secret and no personal data in `details`."""
        tx.publish(
            self._trail.recorded(
                call,
                resource=resource,
                tenant_id=tx.tenant_id,
                epoch=_epoch(tx),
                outcome=outcome,
                principal=principal,
                details=details,
            )
        )

    def audit_duty(self, tx: UnitOfWork, duty: str, *, resource: str, details: Mapping[str, object]) -> None:
        """One record of what this service did by itself."""
        tx.publish(
            self._trail.duty(
                duty, resource=resource, tenant_id=tx.tenant_id, epoch=_epoch(tx), details=details
            )
        )

    async def revoke(
        self, tx: UnitOfWork, principal: str, cause: Cause, *, last_issued: datetime | None
    ) -> None:
        """Refuse everywhere what was issued to the principal up to now, or to `last_issued` if that is later.

        To be called under the lock of the principal's row, which issuing takes too. It is in the index before
        the event can be: who starts reads the index after it has begun to listen, and so misses neither. If
        this transaction then fails, who starts refuses tokens that may be replaced at once.
        """
        now = self._clock.now()
        until = now if last_issued is None else max(now, last_issued)
        revocation = revoke(tx.tenant_id, principal, cause, until, self._longest_token)
        await self._directories.put_revocation(tx, revocation)
        event = events_pb2.PrincipalRevoked(cause=cause.value)
        event.revocation.tenant_id = str(tx.tenant_id)
        event.revocation.principal = principal
        event.revocation.revoke_time.FromDatetime(revocation.revoke_time)
        event.revocation.expire_time.FromDatetime(revocation.expire_time)
        self.publish(tx, PRINCIPAL_REVOKED, event)
        await self._indexing.put_if_possible(revocation)

    def publish(self, tx: UnitOfWork, event_type: str, message: Message) -> None:
        """Put a message into the outbox, in order with the tenant's others."""
        tx.publish(
            CloudEvent(
                id=self._ids(),
                type=event_type,
                source=SERVICE,
                tenant_id=tx.tenant_id,
                epoch=_epoch(tx),
                time=self._clock.now(),
                key=tx.tenant_id.hex,
                data=message.SerializeToString(),
            )
        )

    async def replayed(self, tx: UnitOfWork, call: Call) -> bytes | None:
        """What an earlier call with this request_id remembered; None: this call acts, and remembers.

        What is remembered has neither secrets nor personal data. The body's hash is keyed, because a body may
        hold a password, and a plain hash of it could be guessed.
        """
        if call.request_id is None or call.principal is None:
            return None
        now = self._clock.now()
        return await tx.replay(
            IdempotentRequest(
                principal=call.principal,
                method=call.method,
                request_id=call.request_id,
                body_hash=self._keyed(tx.tenant_id, call.request_hash.hex()),
                now=now,
                expires_at=now + _REPLAYED_FOR,
            )
        )

    def remember(self, tx: UnitOfWork, call: Call, answer: bytes) -> None:
        """Store what `replayed` is to return for the same request."""
        if call.request_id is not None:
            tx.remember(answer)


def _epoch(tx: UnitOfWork) -> int:
    """Of the tenant's placement; what concerns the whole installation has none."""
    return 0 if isinstance(tx.scope, Platform) else tx.scope.epoch
