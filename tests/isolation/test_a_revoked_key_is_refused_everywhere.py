from __future__ import annotations

import asyncio
import time
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaProducer

from tlsy.contracts.events import INGEST_TOPIC, SERVICES
from tlsy.contracts.identity.v1 import identity_pb2 as identity
from tlsy.contracts.ingestion.events.v1 import events_pb2

from . import leaks
from .calls import BY_NAME
from .names import REQUESTS, event
from .world import until

if TYPE_CHECKING:
    from .calls import Answer
    from .world import Tenant, World

pytestmark = pytest.mark.asyncio(loop_scope="session")
#: One RPC of each service.
ASKED = ("GetTenant", "ListRoles", "GetIngestUsage", "ListRules")
WITHIN_S = 1.0
TRIES = 3


async def of_a_new_key(world: World, tenant: Tenant) -> tuple[str, str]:
    """A key's name, and its token."""
    request = identity.CreateApiKeyRequest(parent=tenant.names.tenant, display_name="x", role="agent")
    made = await world.client.get("CreateApiKey", request, tenant.tokens["client-admin"])
    exchange = identity.ExchangeApiKeyRequest(api_key=made.secret)
    token = (await world.client.get("ExchangeApiKey", exchange)).token.access_token
    return made.api_key.name, token


async def answers(world: World, tenant: Tenant, token: str) -> list[Answer]:
    """Of every service, at both replicas."""
    asked = [
        world.client.ask(BY_NAME[rpc], REQUESTS[rpc](tenant.names), token, replica)
        for rpc, replica in product(ASKED, range(2))
    ]
    return await asyncio.gather(*asked)


async def refusal_of(world: World, record: dict[str, Any]) -> str:
    """Why a producer's record is refused: the reason that its dead letter bears."""
    producer = AIOKafkaProducer(bootstrap_servers=world.suite.brokers)
    await producer.start()
    await producer.send_and_wait(INGEST_TOPIC, **record)
    await producer.stop()

    async def letter() -> Any:
        dead = [each for each in await leaks.records(world.suite.brokers) if each.topic.endswith(".dlq")]
        return [each for each in dead if each.key == record["key"]]

    return str(dict((await until(letter))[0].headers)["dlq-reason"].decode())


async def revoked(world: World, tenant: Tenant) -> tuple[str, str, float]:
    """A key's name and token, and the seconds from its revocation until everybody refused it."""
    key, token = await of_a_new_key(world, tenant)
    assert not {"TOKEN_REVOKED"} & {answer.reason for answer in await answers(world, tenant, token)}
    request = identity.RevokeApiKeyRequest(name=key)
    await world.client.get("RevokeApiKey", request, tenant.tokens["client-admin"])
    begun = time.monotonic()

    async def everywhere() -> bool:
        return {answer.reason for answer in await answers(world, tenant, token)} == {"TOKEN_REVOKED"}

    await until(everywhere)
    return key, token, time.monotonic() - begun


async def test_by_every_service_at_both_replicas_and_on_the_producers_topic(world: World) -> None:
    assert {BY_NAME[rpc].service for rpc in ASKED} == set(SERVICES)
    tenant = world.tenants["shared-0"]
    tries = [await revoked(world, tenant) for _ in range(TRIES)]
    # The best of some: on a busy machine the clock on the wall measures the others.
    assert min(taken_s for *_, taken_s in tries) < WITHIN_S
    key, token, _ = tries[-1]

    sent = [event(1, tenant.names.since_us + 90)]
    record = {
        "key": key.encode(),
        "value": events_pb2.ProducedEvents(events=sent).SerializeToString(),
        "headers": [("authorization", f"Bearer {token}".encode())],
    }
    assert await refusal_of(world, record) == "TOKEN_REVOKED"
