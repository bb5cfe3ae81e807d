from __future__ import annotations

import asyncio

import pytest

from libs.rpc.tests.world import ACME, ALICE, World, bearer, entry, refused
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as ingestion
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as registry
from tlsy.rpc.tokens import Actor
from tlsy.runtime.ids import PLATFORM_SLUG, PLATFORM_TENANT_ID
from tlsy.tenancy.context import TenantState

TAIL = ingestion.TailEventsRequest(parent="tenants/acme")


async def silent() -> None:
    await asyncio.Event().wait()


def revoke(world: World) -> None:
    now = world.clock.now().timestamp()
    world.deny_list.revoke(ACME, ALICE, revoked_at=now, expires_at=now + 600)


def module_off(world: World) -> None:
    world.catalog.put(entry(ACME, "acme", modules=frozenset()))


def deleting(world: World) -> None:
    world.catalog.put(entry(ACME, "acme", state=TenantState.DELETING))


def gone(world: World) -> None:
    world.catalog._known.clear()


@pytest.mark.parametrize(
    ("change", "reason", "audited"),
    [
        (revoke, "TOKEN_REVOKED", True),
        (module_off, "MODULE_DISABLED", True),
        (gone, "TENANT_UNKNOWN", True),
        (deleting, "TENANT_NOT_ACTIVE", False),
    ],
)
async def test_a_silent_stream_ends_soon(world, client, change, reason, audited):
    world.ingestion.act = silent
    stream = client.ingestion.TailEvents(TAIL, metadata=bearer(world.token("viewer")))
    assert (await stream.read()).missed == 1
    change(world)
    async with asyncio.timeout(60):
        assert (await refused(stream.read())).reason == reason
    assert [denied.reason for denied in world.denials.calls] == ([reason] if audited else [])


async def test_a_providers_stream_ends_when_the_tenant_lets_it_in_no_more(world, client):
    world.ingestion.act = silent
    world.catalog.put(entry(ACME, "acme", provider_access="FULL"))
    token = world.token("client-admin", actor=Actor(PLATFORM_TENANT_ID, ALICE))
    stream = client.ingestion.TailEvents(TAIL, metadata=bearer(token))
    assert (await stream.read()).missed == 1
    world.catalog.put(entry(ACME, "acme", provider_access="NONE"))
    async with asyncio.timeout(15):
        assert (await refused(stream.read())).reason == "PROVIDER_ACCESS_DENIED"


async def test_a_stream_ends_when_its_token_expires(world, client):
    world.ingestion.act = silent
    token = world.token("viewer", expires_at=world.clock.now().timestamp() + 1.5)
    stream = client.ingestion.TailEvents(TAIL, metadata=bearer(token))
    assert (await stream.read()).missed == 1
    async with asyncio.timeout(60):
        assert (await refused(stream.read())).reason == "TOKEN_EXPIRED"


async def test_nothing_is_written_after_a_revocation(world, client):
    async def revoked() -> None:
        revoke(world)

    world.ingestion.act = revoked
    stream = client.ingestion.TailEvents(TAIL, metadata=bearer(world.token("viewer")))
    assert (await stream.read()).missed == 1
    assert (await refused(stream.read())).reason == "TOKEN_REVOKED"


async def test_a_suspended_tenant_still_reads_its_stream(world, client):
    async def suspended() -> None:
        world.catalog.put(entry(ACME, "acme", state=TenantState.SUSPENDED))

    world.ingestion.act = suspended
    stream = client.ingestion.TailEvents(TAIL, metadata=bearer(world.token("viewer")))
    assert [answer.missed async for answer in stream] == [1, 2]


async def test_the_catalogue_is_read_while_the_platforms_own_tenant_is_made(world, client):
    world.catalog.put(entry(PLATFORM_TENANT_ID, PLATFORM_SLUG, state=TenantState.PROVISIONING))
    metadata = bearer(world.service_tokens().token_for("identity"))
    stream = client.registry.SnapshotCatalog(registry.SnapshotCatalogRequest(), metadata=metadata)
    assert [part.resume_token async for part in stream] == ["1"]
