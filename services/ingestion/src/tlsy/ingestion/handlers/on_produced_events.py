"""A record that a tenant's producer put on the topic goes through the same pipeline as a call.

Whose it is says the token in its header, and nothing else. The pipeline has transactions of its own, so it,
and not the consumer, asks the inbox whether a record was delivered before. The records of a tenant over its
rate are parked, in order, and those of others go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from tlsy.contracts.ingestion.v1.encoded_pb2 import EncodedEvents
from tlsy.eventlog.errors import FinalError, Poison, TenantOverRate
from tlsy.ingestion.domain.events import Outcome, Problem
from tlsy.ingestion.domain.unreadable import unreadable_from
from tlsy.ingestion.handlers.ingest_events import ProducedRecord
from tlsy.rpc.errors import InvalidArgument
from tlsy.runtime.ids import PLATFORM_SLUG, PLATFORM_TENANT_ID, TenantId
from tlsy.tenancy.catalog import known
from tlsy.tenancy.errors import UnknownTenant

if TYPE_CHECKING:
    from tlsy.eventlog.delivery import Delivery
    from tlsy.ingestion.handlers.ingest_events import IngestEvents
    from tlsy.tenancy.catalog import Catalog, TenantEntry

MODULE: Final = "supervision"
#: The type of the event that a record is read as; it is never published.
PRODUCED_EVENTS: Final = "tlsy.ingestion.events.produced.v1"
ENTITLEMENT: Final = "kafka_producers"
#: How its provider's principals are called, also where they act in another tenant.
_PROVIDER: Final = f"tenants/{PLATFORM_SLUG}/"
#: The index of a problem of the record as a whole.
WHOLE_RECORD: Final = -1


class OnProducedEvents:
    """Ingests one record."""

    def __init__(self, *, ingest: IngestEvents, catalog: Catalog) -> None:
        self._ingest = ingest
        self._catalog = catalog

    async def run(self, delivery: Delivery) -> None:
        """Stores the record's events.

        Raises:
            FinalError: KAFKA_PRODUCERS_NOT_ENTITLED, UNREADABLE_DATA, BATCH_REFUSED; the record can never be
                taken, and its tenant is told.
                TENANT_UNKNOWN; it was deleted, and its tokens are good for a while. MODULE_DISABLED.
                PROVIDER_ACCESS_DENIED; as for calls, the provider's tokens hold while the tenant lets it in.
            TenantNotUnderstood, CatalogUnavailable, InboxNotReady: the same record will be taken later.
            TenantOverRate: TENANT_OVER_RATE; the same record will be taken later. A FinalError of that reason
                once no more can be kept for the tenant.
        """
        record = delivery.record
        try:
            # A new one may not have come to the catalogue yet.
            tenant = await known(self._catalog, TenantId(delivery.event.tenant_id))
        except UnknownTenant as unknown:
            raise Poison("TENANT_UNKNOWN", ["the token's tenant does not exist any more"]) from unknown
        if MODULE not in tenant.modules:
            raise Poison("MODULE_DISABLED", [f"module {MODULE} is off for {tenant.slug}"])
        if tenant.provider_access != "FULL" and _of_provider(delivery.event.source, tenant):
            raise Poison("PROVIDER_ACCESS_DENIED", [f"{tenant.slug} does not let its provider do this"])
        place = ProducedRecord(delivery.event.id, record.partition, record.offset)
        # As with quotas, an entitlement that nobody told of limits nothing.
        if not tenant.entitlements.get(ENTITLEMENT, 1):
            text = (
                f"{tenant.slug} may not produce to Kafka: its tier leaves entitlement {ENTITLEMENT} at 0;"
                " send by gRPC, or ask for a tier or an override that has it"
            )
            reason = "KAFKA_PRODUCERS_NOT_ENTITLED"
            raise await self._refused(tenant, place, reason, [Problem(WHOLE_RECORD, reason, "", text)])
        if delivery.overflow:
            text = "was sent faster than the tenant may, and more waits already than is kept for it"
            problem = Problem(WHOLE_RECORD, "TENANT_OVER_RATE", "", text)
            raise await self._refused(tenant, place, "TENANT_OVER_RATE", [problem])
        try:
            events = EncodedEvents.FromString(record.value).events
        except DecodeError as error:
            # What the parser says names messages that are none of the tenant's.
            path = unreadable_from(record.value, EncodedEvents.EVENTS_FIELD_NUMBER)
            text = f"is no ProducedEvents: it cannot be read from {path} on"
            problem = Problem(WHOLE_RECORD, "UNREADABLE_DATA", path, text)
            raise await self._refused(tenant, place, "UNREADABLE_DATA", [problem]) from error
        try:
            ingested = await self._ingest.run(tenant, delivery.event.source, events, len(record.value), place)
        except InvalidArgument as refused:
            problems = [Problem(WHOLE_RECORD, v.reason, v.field, v.description) for v in refused.violations]
            raise await self._refused(tenant, place, "BATCH_REFUSED", problems) from refused
        if Outcome.DEFERRED in ingested.outcomes:
            raise TenantOverRate("TENANT_OVER_RATE", f"{tenant.slug} sends faster than it may")

    async def _refused(
        self, tenant: TenantEntry, place: ProducedRecord, reason: str, problems: list[Problem]
    ) -> FinalError:
        await self._ingest.refuse(tenant, place, problems)
        return FinalError(reason, "; ".join(problem.message for problem in problems))


def _of_provider(principal: str, tenant: TenantEntry) -> bool:
    return principal.startswith(_PROVIDER) and tenant.tenant_id != PLATFORM_TENANT_ID
