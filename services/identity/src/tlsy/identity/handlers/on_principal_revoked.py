"""A revocation of any tenant into the index that services read when they start."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, cast

from tlsy.identity.domain.revocations import IndexedRevocation

if TYPE_CHECKING:
    from tlsy.contracts.identity.events.v1 import events_pb2
    from tlsy.eventlog.delivery import Delivery
    from tlsy.identity.handlers.indexing import IndexRevocations


class OnPrincipalRevoked:
    """What was not put there when it was revoked, because the control database was away.

    Without an inbox row: delivered twice, or out of order, the later revocation stays.
    """

    def __init__(self, indexing: IndexRevocations) -> None:
        self._indexing = indexing

    async def run(self, delivery: Delivery) -> None:
        """See the class."""
        told = cast("events_pb2.PrincipalRevoked", delivery.message).revocation
        await self._indexing.put(
            IndexedRevocation(
                tenant_id=delivery.event.tenant_id,
                principal=told.principal,
                revoke_time=told.revoke_time.ToDatetime(UTC),
                expire_time=told.expire_time.ToDatetime(UTC),
            )
        )
