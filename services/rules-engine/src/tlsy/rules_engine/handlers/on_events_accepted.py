"""Events that ingestion stored are judged by their tenant's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlsy.contracts.ingestion.events.v1.events_pb2 import EventsAccepted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlsy.eventlog.delivery import Delivery
    from tlsy.rules_engine.handlers.evaluation import Evaluation
    from tlsy.tenancy.catalog import Catalog
    from tlsy.tenancy.unit_of_work import UnitOfWork

MODULE: Final = "expert-rules"


class OnEventsAccepted:
    """In the transaction of the delivery. With the module off, events pass by."""

    def __init__(self, *, evaluation: Evaluation, catalog: Catalog) -> None:
        self._evaluation = evaluation
        self._catalog = catalog

    async def run(self, deliveries: Sequence[Delivery], tx: UnitOfWork) -> None:
        """Judges consecutive records of one tenant."""
        tenant = self._catalog.tenant(tx.tenant_id)
        if MODULE not in tenant.modules:
            return
        records = [
            delivery.message.events for delivery in deliveries if isinstance(delivery.message, EventsAccepted)
        ]
        first = deliveries[0]
        await self._evaluation.judge(
            tx, tenant.slug, first.record.partition, records, again=first.attempt > 1
        )
