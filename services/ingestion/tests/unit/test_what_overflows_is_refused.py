from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import UUID

import pytest

from tlsy.contracts.cloudevents import CloudEvent
from tlsy.contracts.ingestion.events.v1.events_pb2 import ProducedEvents
from tlsy.eventlog.delivery import Delivery
from tlsy.eventlog.errors import FinalError
from tlsy.eventlog.ports import Received
from tlsy.ingestion.handlers.ingest_events import IngestEvents
from tlsy.ingestion.handlers.on_produced_events import PRODUCED_EVENTS, OnProducedEvents
from tlsy.tenancy.context import TenantState

NOW = datetime(2026, 5, 4, tzinfo=UTC)
TENANT = SimpleNamespace(
    slug="acme",
    state=TenantState.ACTIVE,
    modules={"supervision"},
    entitlements={},
    provider_access="FULL",
)


class Ingest(IngestEvents):
    """Can only tell the tenant of a refusal."""

    def __init__(self):
        self.told = []

    async def refuse(self, tenant, record, problems):
        self.told += [(tenant, record.offset, problem.reason) for problem in problems]


async def test_a_record_that_cannot_be_kept_for_a_tenant_over_its_rate_is_refused_and_told():
    ingest = Ingest()
    handler = OnProducedEvents(ingest=ingest, catalog=SimpleNamespace(tenant=lambda _: TENANT))
    record = Received(topic="t", partition=0, offset=7, time=NOW, key=b"k", value=b"", headers=())
    event = CloudEvent(
        id=UUID(int=1),
        type=PRODUCED_EVENTS,
        source="agents/a",
        tenant_id=UUID(int=2),
        epoch=0,
        time=NOW,
        key="k",
        data=b"",
    )
    delivery = Delivery(
        event=event, message=ProducedEvents(), record=record, attempt=1, assignment_epoch=1, overflow=True
    )
    with pytest.raises(FinalError, match="TENANT_OVER_RATE"):
        await handler.run(delivery)
    assert ingest.told == [(TENANT, 7, "TENANT_OVER_RATE")]
