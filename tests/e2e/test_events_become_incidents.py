from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiokafka import AIOKafkaProducer

from tlsy.contracts.events import INGEST_TOPIC
from tlsy.contracts.ingestion.events.v1.events_pb2 import ProducedEvents
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as rules
from tlsy.tenancy.context import IsolationMode

from .books import ONBOARDED, books_once
from .load import counted, marks
from .world import until

if TYPE_CHECKING:
    from .world import Tenant, World

_NUMBERS: Final = 50
_COUNTED: Final = 2 * counted(_NUMBERS)
_DONE: Final = {**ONBOARDED, "AcknowledgeIncident": 1, "ResolveIncident": 1}


async def test_events_become_incidents(world: World) -> None:
    tenants = await asyncio.gather(*(world.tenant(f"firm-{mode.lower()}", mode) for mode in IsolationMode))
    await asyncio.gather(*(world.publish_rules(tenant, _COUNTED) for tenant in tenants))
    await asyncio.gather(*(_send_both_ways(world, tenant) for tenant in tenants))
    await asyncio.gather(*(_incidents_are_worked(world, tenant) for tenant in tenants))
    await asyncio.gather(*(_books_agree(world, tenant) for tenant in tenants))


async def _send_both_ways(world: World, tenant: Tenant) -> None:
    """The agent's events twice, by call; the same events of another source by the producers' topic."""
    sender, numbers = world.sender(tenant, "agent"), range(_NUMBERS)
    await sender.send(numbers)
    await sender.send(numbers)
    assert sender.acknowledged == set(numbers)
    producer = AIOKafkaProducer(bootstrap_servers=world.running.brokers[0])
    await producer.start()
    try:
        token = await world.agent(tenant.slug).token()
        events = world.sender(tenant, "producer").events(numbers)
        value = ProducedEvents(events=events).SerializeToString()
        headers = [("authorization", f"Bearer {token}".encode())]
        for _ in range(2):
            await producer.send_and_wait(INGEST_TOPIC, value, key=tenant.slug.encode(), headers=headers)
    finally:
        await producer.stop()


async def _incidents_are_worked(world: World, tenant: Tenant) -> None:
    """Marks end by themselves, the count is acknowledged, what is too much is resolved by a person."""
    ended = 2 * marks(_NUMBERS)
    await until(lambda: world.has(tenant, "marked", ended, rules.INCIDENT_STATE_RESOLVED))
    await until(lambda: world.has(tenant, "all", 1))
    more = await world.counted_exactly(tenant, _COUNTED, range(_NUMBERS + 1, _NUMBERS + 2))
    (full,) = await world.incidents(tenant, "all")
    stub = (await world.administrator(tenant.slug)).rules
    seen = await stub.AcknowledgeIncident(rules.AcknowledgeIncidentRequest(name=full.name, note="seen"))
    assert seen.state == rules.INCIDENT_STATE_ACKNOWLEDGED
    done = await stub.ResolveIncident(rules.ResolveIncidentRequest(name=more.name, note="done"))
    assert done.state == rules.INCIDENT_STATE_RESOLVED


async def _books_agree(world: World, tenant: Tenant) -> None:
    accepted = 2 * _NUMBERS + 1
    books = await books_once(world.place(tenant), accepted)
    books.reconcile(accepted)
    assert books.incidents == {
        ("marked", "RESOLVED"): 2 * marks(_NUMBERS),
        ("all", "ACKNOWLEDGED"): 1,
        ("more", "RESOLVED"): 1,
    }
    assert books.told["acknowledged"] == 1
    assert books.audited == _DONE
