from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
from tlsy.contracts.ingestion.v1 import ingestion_pb2_grpc
from tlsy.ingestion.adapters.postgres.event_store import PostgresEventStore
from tlsy.ingestion.adapters.prometheus import PrometheusBatches
from tlsy.ingestion.app import build
from tlsy.ingestion.domain.untold import Untold
from tlsy.ingestion.handlers.ingest_events import IngestEvents
from tlsy.ingestion.settings import IngestionSettings
from tlsy.runtime.clock import SystemClock
from tlsy.runtime.ids import Uuid7
from tlsy.testkit.kafka import embedded_broker
from tlsy.testkit.peers import peers
from tlsy.testkit.ports import free_port

SERVICE = pb.DESCRIPTOR.services_by_name["IngestionService"]


class Pipeline(IngestEvents):
    """Takes events as tests make them."""

    async def run(self, tenant, principal, events, *args):
        return await super().run(tenant, principal, [each.SerializeToString() for each in events], *args)


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
def real_time_clock(fake_clock):
    """A clock that the test moves, from now on: partitions are there for today. No month ends soon."""
    now = SystemClock().now()
    soon = now + timedelta(hours=2)
    begin = now if soon.month == now.month else soon
    fake_clock.advance((begin - fake_clock.now()).total_seconds())
    return fake_clock


@pytest.fixture
def make_pipeline(installation, published):
    """Pipelines as replicas have them: each with pools, meters and a shard of its own."""

    def make(*, clock=None, shard=0, limits=None, store=None, untold=None, registry=None):
        clock = clock or SystemClock()
        return Pipeline(
            tenancy=installation.tenancy("ingestion", limits),
            store=store or PostgresEventStore(shard),
            after_commit=published,
            clock=clock,
            ids=Uuid7(clock, os.urandom),
            lateness=timedelta(days=3),
            untold=untold or Untold(),
            observer=PrometheusBatches(registry or CollectorRegistry()),
        )

    return make


@pytest.fixture
def make_events():
    """Good events, told apart by their number."""

    def make(count, *, first=0, time_us=None, **changes):
        now_us = time_us or int(SystemClock().now().timestamp() * 1_000_000)
        good: dict[str, Any] = {"source": "agent/a", "type": "host.cpu", "labels": {"host": "web-1"}}
        return [
            pb.Event(**(good | {"id": str(number), "time_us": now_us + number, "value": number} | changes))
            for number in range(first, first + count)
        ]

    return make


class BrokerControl:
    """An embedded broker on one port that can be killed and come back empty."""

    def __init__(self, behind_s):
        self._port, self._behind_s = free_port(), behind_s
        self._running = AsyncExitStack()

    async def start(self):
        return await self._running.enter_async_context(
            embedded_broker(port=self._port, behind_s=self._behind_s)
        )

    async def kill(self):
        await self._running.aclose()


class World:
    """Replicas of the service among stand-ins of its peers."""

    def __init__(self, installation, around, brokers, broker):
        self.installation = installation
        self.around = around
        self.brokers = brokers
        self.broker = broker
        self.replicas = []

    async def replica(self):
        host = self.around.host("ingestion")
        service = build(IngestionSettings(shard=len(self.replicas)), host)
        await service.start()
        self.replicas.append(service)
        async with asyncio.timeout(60):
            while not service.ready():
                await asyncio.sleep(0.01)
        return host

    def stub(self, host, tenant, *roles, **claims):
        token = self.around.token(tenant, *roles, **claims)
        return ingestion_pb2_grpc.IngestionServiceStub(self.around.dial(host, SERVICE, token))


@pytest.fixture
def waited_s():
    """How long records have been in the log when they are read; for tests to override."""
    return 0


@pytest.fixture
async def world(installation, waited_s):
    await installation.platform_tenant()
    broker = BrokerControl(waited_s)
    brokers = await broker.start()
    async with peers(installation, brokers) as around:
        made = World(installation, around, brokers, broker)
        yield made
        for service in made.replicas:
            await service.stop(5)
    await broker.kill()
