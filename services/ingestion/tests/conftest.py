from __future__ import annotations

import os
from datetime import timedelta

import pytest

from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
from tlsy.ingestion.adapters.postgres.event_store import PostgresEventStore
from tlsy.ingestion.handlers.ingest_events import IngestEvents
from tlsy.runtime.clock import SystemClock
from tlsy.runtime.ids import Uuid7


class Published:
    """Keeps what is published after a commit."""

    def __init__(self):
        self.events = []

    def __call__(self, tenant, events):
        self.events += events


@pytest.fixture
def published():
    return Published()


@pytest.fixture
def make_pipeline(installation, published):
    """Pipelines as replicas have them: each with pools, meters and a shard of its own."""

    def make(*, clock=None, shard=0, limits=None):
        clock = clock or SystemClock()
        return IngestEvents(
            tenancy=installation.tenancy("ingestion", limits),
            store=PostgresEventStore(shard),
            after_commit=published,
            clock=clock,
            ids=Uuid7(clock, os.urandom),
            lateness=timedelta(days=3),
        )

    return make


@pytest.fixture
def make_events():
    """Good events, told apart by their number."""

    def make(count, *, first=0, time_us=None, **changes):
        now_us = time_us or int(SystemClock().now().timestamp() * 1_000_000)
        return [
            pb.Event(
                **(
                    {
                        "source": "agent/a",
                        "id": str(number),
                        "time_us": now_us + number,
                        "type": "host.cpu",
                        "value": number,
                        "labels": {"host": "web-1"},
                    }
                    | changes
                )
            )
            for number in range(first, first + count)
        ]

    return make
