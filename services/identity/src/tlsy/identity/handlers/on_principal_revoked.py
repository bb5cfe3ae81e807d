"""A revocation of any tenant into the index that services read when they start."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, cast

from tlsy.identity.domain.revocations import IndexedRevocation
from tlsy.tenancy.context import PLATFORM

if TYPE_CHECKING:
    from tlsy.contracts.identity.events.v1 import events_pb2
    from tlsy.eventlog.delivery import Delivery
    from tlsy.identity.ports import RevocationIndex
    from tlsy.tenancy.unit_of_work import Tenancy


class OnPrincipalRevoked:
    """Written to the control database in a transaction of its own, without an inbox row.

    Delivered twice, or out of order, the later revocation stays.
    """

    def __init__(self, tenancy: Tenancy, index: RevocationIndex) -> None:
        self._tenancy = tenancy
        self._index = index

    async def run(self, delivery: Delivery) -> None:
        """See the class."""
        told = cast("events_pb2.PrincipalRevoked", delivery.message).revocation
        async with self._tenancy.control(PLATFORM, write=True) as tx:
            await self._index.put(
                tx,
                IndexedRevocation(
                    tenant_id=delivery.event.tenant_id,
                    principal=told.principal,
                    revoke_time=told.revoke_time.ToDatetime(UTC),
                    expire_time=told.expire_time.ToDatetime(UTC),
                ),
            )
