"""A record that a tenant's producer put on the topic goes through the same pipeline as a call.

Whose it is says the token in its header, and nothing else. The pipeline itself makes a repeated delivery
harmless, so there is no inbox row. The records of a tenant over its rate are parked, in order, and those of
others go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlsy.contracts.ingestion.events.v1 import events_pb2
from tlsy.eventlog.errors import FinalError, TenantPaused
from tlsy.ingestion.domain.events import Outcome
from tlsy.ingestion.handlers.ingest_events import ProducedRecord
from tlsy.rpc.errors import InvalidArgument
from tlsy.runtime.ids import TenantId

if TYPE_CHECKING:
    from tlsy.eventlog.delivery import Delivery
    from tlsy.ingestion.handlers.ingest_events import IngestEvents
    from tlsy.tenancy.catalog import Catalog

#: The type of the event that a record is read as; it is never published.
PRODUCED_EVENTS: Final = "tlsy.ingestion.events.produced.v1"


class OnProducedEvents:
    """Ingests one record."""

    def __init__(self, *, ingest: IngestEvents, catalog: Catalog) -> None:
        self._ingest = ingest
        self._catalog = catalog

    async def run(self, delivery: Delivery) -> None:
        """Stores the record's events.

        Raises:
            FinalError: BATCH_REFUSED; the record can never be taken.
            TenantPaused: TENANT_OVER_RATE; the same record will be taken later.
        """
        record = delivery.record
        events = events_pb2.ProducedEvents.FromString(delivery.event.data).events
        tenant = self._catalog.tenant(TenantId(delivery.event.tenant_id))
        place = ProducedRecord(record.partition, record.offset)
        try:
            ingested = await self._ingest.run(tenant, delivery.event.source, events, len(record.value), place)
        except InvalidArgument as refused:
            raise FinalError("BATCH_REFUSED", refused.message) from refused
        if Outcome.DEFERRED in ingested.outcomes:
            raise TenantPaused("TENANT_OVER_RATE", f"{tenant.slug} sends faster than it may")
