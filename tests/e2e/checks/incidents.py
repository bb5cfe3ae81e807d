"""Events, by call and by the producers' topic, become incidents of their tenant, in each isolation mode."""

from __future__ import annotations

import asyncio
from itertools import permutations
from typing import TYPE_CHECKING, Final

import grpc
import pytest
from aiokafka import AIOKafkaProducer

from tests.e2e.books import ONBOARDED, books_once
from tests.e2e.load import counted, marks
from tests.e2e.world import until
from tlsy.contracts.events import INGEST_TOPIC
from tlsy.contracts.ingestion.events.v1.events_pb2 import ProducedEvents
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as ingestion
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as rules
from tlsy.tenancy.context import IsolationMode

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from tests.e2e.world import Tenant, World

_NUMBERS: Final = 50
_COUNTED: Final = 2 * counted(_NUMBERS)
_DONE: Final = {**ONBOARDED, "AcknowledgeIncident": 1, "ResolveIncident": 1}


async def events_become_incidents(world: World) -> None:
    tenants = await asyncio.gather(*(world.tenant(f"firm-{mode.lower()}", mode) for mode in IsolationMode))
    await asyncio.gather(*(world.publish_rules(tenant, _COUNTED) for tenant in tenants))
    await asyncio.gather(*(_send_both_ways(world, tenant) for tenant in tenants))
    await asyncio.gather(*(_incidents_are_worked(world, tenant) for tenant in tenants))
    for mine, others in permutations(tenants, 2):
        await _sees_nothing_of(world, mine, others)
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


async def _sees_nothing_of(world: World, mine: Tenant, others: Tenant) -> None:
    """Neither a tenant's people nor its agent get anywhere in another one, whatever each may at home."""
    people, agent = await world.administrator(mine.slug), world.agent(mine.slug)
    (incident,) = await world.incidents(others, "more")
    asked: list[Awaitable[object]] = [
        people.rules.ListIncidents(rules.ListIncidentsRequest(parent=others.name)),
        people.rules.GetIncident(rules.GetIncidentRequest(name=incident.name)),
        agent.ingestion.IngestEvents(
            ingestion.IngestEventsRequest(
                parent=others.name, events=world.sender(others, "agent").events(range(_NUMBERS, _NUMBERS + 1))
            )
        ),
    ]
    for call in asked:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED


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
