"""Composition of ingestion."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from tlsy.contracts.events import INGEST_TOPIC, TOPICS
from tlsy.contracts.ingestion.v1 import ingestion_pb2
from tlsy.eventlog.consumer import Consumer
from tlsy.eventlog.dead_letters import DeadLetters, OutsiderLimits
from tlsy.eventlog.kafka_readers import KafkaGroupReader
from tlsy.ingestion import consumers
from tlsy.ingestion.adapters.postgres.event_store import PostgresEventStore
from tlsy.ingestion.adapters.prometheus import PrometheusBatches
from tlsy.ingestion.domain.untold import Untold
from tlsy.ingestion.handlers.get_ingest_usage import GetIngestUsage
from tlsy.ingestion.handlers.ingest_events import IngestEvents
from tlsy.ingestion.handlers.list_ingest_outcomes import ListIngestOutcomes
from tlsy.ingestion.handlers.on_produced_events import OnProducedEvents
from tlsy.ingestion.handlers.query_events import QueryEvents
from tlsy.ingestion.handlers.tail_events import TailEvents
from tlsy.ingestion.handlers.tell_minutes import TellMinutes
from tlsy.ingestion.rpc.servicer import IngestionServicer, add_to_server
from tlsy.rpc.assembly import assemble
from tlsy.rpc.server import Served
from tlsy.runtime.service import Part, Task

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from tlsy.contracts.cloudevents import CloudEvent
    from tlsy.ingestion.settings import IngestionSettings
    from tlsy.rpc.assembly import Assembly
    from tlsy.runtime.host import Host
    from tlsy.runtime.service import Supervisor
    from tlsy.tenancy.context import TenantContext

SERVICE: Final = "ingestion"
_GROUP: Final = "ingestion"


def build(settings: IngestionSettings, host: Host) -> Supervisor:
    """Wires the service; no I/O."""
    assembly = assemble(host, "ingestion")

    def following() -> AbstractAsyncContextManager[None]:
        return live.held()

    tail = TailEvents(following)
    live = assembly.on_demand("live-tails", TOPICS[SERVICE], tail.on_event, tail.on_lost)
    store, untold = PostgresEventStore(settings.shard), Untold()

    def after_commit(tenant: TenantContext, events: Sequence[CloudEvent]) -> None:
        assembly.relay.publish_after_commit(tenant.placement, events)

    ingest = IngestEvents(
        tenancy=assembly.tenancy,
        store=store,
        after_commit=after_commit,
        clock=host.clock,
        ids=host.ids,
        lateness=timedelta(hours=settings.lateness_h),
        untold=untold,
        observer=PrometheusBatches(host.telemetry.registry),
    )
    servicer = IngestionServicer(
        ingest=ingest,
        query=QueryEvents(tenancy=assembly.tenancy, store=store),
        tail=tail,
        outcomes=ListIngestOutcomes(tenancy=assembly.tenancy, store=store),
        usage=GetIngestUsage(tenancy=assembly.tenancy, store=store, clock=host.clock),
    )
    served = Served(
        ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"],
        add_to_server,
        servicer,
    )
    producers = _producers(assembly, ingest, settings)
    minutes = TellMinutes(
        tenancy=assembly.tenancy,
        store=store,
        clock=host.clock,
        ids=host.ids,
        untold=untold,
        everyone=lambda: (entry.tenant_id for entry in assembly.catalog),
        every_s=settings.audit_every_s,
    )
    return assembly.supervisor(
        [served],
        # The minutes beside the calls, because this replica knows which tenants it ingested for.
        parts=[Part(live), Part(Task("minutes", minutes.run))],
        # A stopped partition of the producers' topic is an alarm (a metric) and no reason to answer no calls.
        workers=[Part(producers)],
    )


def _producers(assembly: Assembly, ingest: IngestEvents, settings: IngestionSettings) -> Consumer:
    host = assembly.host
    credentials = consumers.ProducerCredentials(verifier=assembly.verifier)
    return Consumer(
        _GROUP,
        [INGEST_TOPIC],
        package="ingestion",
        reader=lambda: KafkaGroupReader(host.brokers, _GROUP, [INGEST_TOPIC], host.service),
        routes=consumers.routes(OnProducedEvents(ingest=ingest, catalog=assembly.catalog)),
        transactions=assembly.tenancy,
        dead_letters=DeadLetters(
            _GROUP, assembly.producer, assembly.inspector, host.clock, outsiders=OutsiderLimits()
        ),
        clock=host.clock,
        jitter=assembly.jitter,
        metrics=assembly.metrics,
        ready=assembly.catalog.wait_ready,
        makes={INGEST_TOPIC: settings.ingest_partitions},
        decode=credentials.decode,
        decode_parked=credentials.decode_parked,
        payloads=consumers.PAYLOADS,
    )
