"""The publishing and the consuming side of one installation, as tests drive them."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import aiokafka
from prometheus_client import CollectorRegistry

from tlsy.broker import Broker, BrokerSettings
from tlsy.contracts.cloudevents import CloudEvent
from tlsy.contracts.events import EVENTS_ACCEPTED, TOPICS
from tlsy.contracts.ingestion.events.v1.events_pb2 import EventsAccepted
from tlsy.eventlog.applier import RetryPolicy
from tlsy.eventlog.cloudevents import to_headers
from tlsy.eventlog.consumer import Consumer, ConsumerSettings
from tlsy.eventlog.dead_letters import DeadLetters
from tlsy.eventlog.delivery import Each
from tlsy.eventlog.kafka import KafkaInspector, KafkaProducer
from tlsy.eventlog.kafka_readers import KafkaGroupReader
from tlsy.eventlog.metrics import EventLogMetrics
from tlsy.eventlog.outboxes import Outboxes
from tlsy.eventlog.partition import PartitionSettings
from tlsy.eventlog.ports import OutboxDatabase, Record
from tlsy.eventlog.relay import Relay, RelaySettings
from tlsy.runtime.brokers import Brokers
from tlsy.runtime.clock import SystemClock
from tlsy.runtime.ids import Uuid7
from tlsy.testkit.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tlsy.tenancy.catalog import TenantEntry
    from tlsy.tenancy.context import Placement
    from tlsy.tenancy.database import Databases
    from tlsy.tenancy.unit_of_work import Tenancy
    from tlsy.testkit.installation import Installation

TOPIC = TOPICS["ingestion"]
GROUP = "rules-engine"
CLOCK = SystemClock()
IDS = Uuid7(CLOCK, os.urandom)


async def until(condition: Callable[[], Awaitable[object]], deadline_s: float = 60.0) -> None:
    """Wait for something to become true; the test fails if it does not."""
    async with asyncio.timeout(deadline_s):
        while not await condition():
            await asyncio.sleep(0.02)


def event_of(tenant: TenantEntry, note: str, *, key: str = "", kind: str = EVENTS_ACCEPTED) -> CloudEvent:
    """An event whose data carry `note`."""
    message = EventsAccepted()
    message.events.add().id = note
    return CloudEvent(
        id=IDS(),
        type=kind,
        source="ingestion",
        tenant_id=tenant.tenant_id,
        epoch=tenant.epoch,
        time=CLOCK.now(),
        key=key or tenant.tenant_id.hex,
        data=message.SerializeToString(),
    )


def note_of(data: bytes) -> str:
    """The note that `event_of` put in."""
    return EventsAccepted.FromString(data).events[0].id


class BrokerControl:
    """An embedded broker on one port that can be killed and come back empty."""

    def __init__(self, **settings: Any) -> None:
        self._settings = BrokerSettings(port=free_port(), **settings)
        self.address = ""

    async def start(self) -> None:
        self._broker = Broker(self._settings)
        self.address = str(await self._broker.start())

    async def stop(self) -> None:
        await self._broker.stop()


@dataclass(kw_only=True)
class World:
    """Makes relays and consumers over one installation and one broker, and stops them at the end."""

    installation: Installation
    servers: str
    door: Brokers | None = None
    metrics: EventLogMetrics = field(default_factory=lambda: EventLogMetrics(CollectorRegistry()))
    components: list[Relay | Consumer] = field(default_factory=list)
    clients: list[KafkaProducer | KafkaInspector] = field(default_factory=list)
    tenancies: dict[str, Tenancy] = field(default_factory=dict)

    @property
    def brokers(self) -> Brokers:
        """How the components get in; the test itself reads from `servers`, in clear."""
        return self.door or Brokers(self.servers)

    def tenancy(self, package: str) -> Tenancy:
        """The transactions of the test itself."""
        if package not in self.tenancies:
            self.tenancies[package] = self.installation.tenancy(package, wake=self._wake)
        return self.tenancies[package]

    def _wake(self, placement: Placement) -> None:
        for component in self.components:
            if isinstance(component, Relay):
                component.wake(placement)

    def producer(self) -> KafkaProducer:
        self.clients.append(producer := KafkaProducer(self.brokers, "test"))
        return producer

    def inspector(self) -> KafkaInspector:
        self.clients.append(inspector := KafkaInspector(self.brokers, "test"))
        return inspector

    def databases(self) -> list[OutboxDatabase]:
        """See `PlacementSource.databases`."""
        return [
            OutboxDatabase(self.installation.control, notifies=True),
            OutboxDatabase(self.installation.common, notifies=True),
            *(OutboxDatabase(entry.placement, notifies=False) for entry in self.installation.dedicated),
        ]

    def outboxes(self, databases: Databases | None = None) -> Outboxes:
        """The publisher's, with a pool of its own unless one is given."""
        return Outboxes(
            "ingestion",
            databases or self.installation.databases("tlsy_relay"),
            self.installation.control,
            listening=self.installation.databases("tlsy_relay"),
        )

    def relay(self, **changes) -> Relay:
        settings = RelaySettings(partitions=4, sweep_s=0.1, hot_window_s=1.0)
        wiring = {
            "outboxes": self.outboxes(),
            "producer": self.producer(),
            "inspector": self.inspector(),
            "source": self,
            "clock": CLOCK,
            "jitter": lambda: 0.5,
            "metrics": self.metrics,
        }
        given = {name: changes.pop(name) for name in list(changes) if name in wiring}
        relay = Relay("ingestion", TOPIC, **{**wiring, **given}, settings=replace(settings, **changes))
        self.components.append(relay)
        return relay

    async def relaying(self, **changes) -> Relay:
        relay = self.relay(**changes)
        await relay.start()
        return relay

    def consumer(self, routes=None, **changes) -> Consumer:
        settings: dict[str, Any] = {
            "partition": PartitionSettings(replay_s=0.05, replay_max_s=0.2, retry_s=0.05),
            "retry": RetryPolicy(attempts=3, first_wait_s=0.01),
            "revoke_timeout_s": 2.0,
            "growth_known_s": 0.1,
        }
        known = ("partition", "retry", "revoke_timeout_s", "parking", "inbox_retention", "growth_known_s")
        settings |= {name: changes.pop(name) for name in known if name in changes}
        wiring = {
            "package": "rules_engine",
            "reader": lambda: KafkaGroupReader(self.brokers, GROUP, [TOPIC], "test", session_timeout_s=3.0),
            "routes": {EVENTS_ACCEPTED: Each(note_down)} if routes is None else routes,
            "transactions": self.installation.tenancy("rules_engine"),
            "dead_letters": DeadLetters(GROUP, self.producer(), self.inspector(), CLOCK),
            "clock": CLOCK,
            "jitter": lambda: 0.5,
            "metrics": self.metrics,
        }
        consumer = Consumer(GROUP, [TOPIC], **{**wiring, **changes}, settings=ConsumerSettings(**settings))
        self.components.append(consumer)
        return consumer

    async def consuming(self, routes=None, **changes) -> Consumer:
        consumer = self.consumer(routes, **changes)
        await consumer.start()
        return consumer

    async def publish(self, tenant: TenantEntry, *notes: str, sweep_after_s: float = 0) -> list[CloudEvent]:
        """Write events to the outbox, all in one transaction."""
        events = [event_of(tenant, note) for note in notes]
        await self.write(tenant, *events, sweep_after_s=sweep_after_s)
        return events

    async def write(self, tenant: TenantEntry, *events: CloudEvent, sweep_after_s: float = 0) -> None:
        async with self.tenancy("ingestion").transaction(tenant.context, write=True) as tx:
            for event in events:
                tx.publish(event, sweep_after_s=sweep_after_s)

    async def send(self, *events: CloudEvent, key: bytes | None = None) -> None:
        """Write records to the topic as a relay would, without an outbox."""
        await self.inspector().ensure_topics({TOPIC: 4})
        records = [
            Record(
                topic=TOPIC,
                key=event.key.encode() if key is None else key,
                value=event.data,
                headers=to_headers(event, log=1),
                time=CLOCK.now(),
            )
            for event in events
        ]
        assert None not in await self.producer().publish(records, timeout_s=20)

    async def entries(self, tenant: TenantEntry) -> list[str]:
        """What the ledger has noted for the tenant, in order."""
        async with self.tenancy("rules_engine").transaction(tenant.context, write=False) as tx:
            return [row["note"] for row in await tx.fetch("select note from entries order by position")]

    async def noted(self, tenant: TenantEntry, *notes: str) -> None:
        """Wait until exactly these are noted, in this order."""

        async def condition() -> bool:
            return len(await self.entries(tenant)) >= len(notes)

        await until(condition)
        assert await self.entries(tenant) == list(notes)

    async def unpublished(self, tenant: TenantEntry) -> int:
        connection = await self.installation.connect("tlsy_relay", tenant.placement)
        count = await connection.fetchval("select count(*) from ingestion.outbox where published_at is null")
        await connection.close()
        return int(count)

    async def published(self, tenant: TenantEntry) -> None:
        """Wait until nothing of the tenant's database waits to be published."""

        async def condition() -> bool:
            return await self.unpublished(tenant) == 0

        await until(condition)

    async def records(self, topic: str = TOPIC) -> list[aiokafka.ConsumerRecord]:
        """Everything that is in the topic, in order per partition."""
        consumer = aiokafka.AIOKafkaConsumer(
            topic, bootstrap_servers=self.servers, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            starts = await consumer.beginning_offsets(list(consumer.assignment()))
            ends = await consumer.end_offsets(list(consumer.assignment()))
            found: list[aiokafka.ConsumerRecord] = []
            async with asyncio.timeout(60):
                while len(found) < sum(ends.values()) - sum(starts.values()):
                    for batch in (await consumer.getmany(timeout_ms=200)).values():
                        found += batch
            return sorted(found, key=lambda record: (record.partition, record.offset))
        finally:
            await consumer.stop()

    async def stop(self) -> None:
        for component in reversed(self.components):
            await component.stop(1.0)
        for client in self.clients:
            await client.stop()


async def note_down(delivery, tx) -> None:
    """The handler of the ledger."""
    await tx.execute(
        "insert into entries (tenant_id, note, epoch) values ($1, $2, $3)",
        tx.tenant_id,
        delivery.message.events[0].id,
        delivery.assignment_epoch,
    )
