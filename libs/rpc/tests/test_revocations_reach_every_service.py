from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, cast
from uuid import uuid4

import grpc
import pytest

from libs.rpc.tests.world import ACME, ALICE, OTHER, World, bearer, refused
from tlsy.contracts import events
from tlsy.contracts.cloudevents import CloudEvent
from tlsy.contracts.identity.events.v1.events_pb2 import PrincipalRevoked, SigningKeyRotated
from tlsy.contracts.identity.v1 import identity_pb2
from tlsy.rpc.errors import Unavailable
from tlsy.rpc.keys import Jwks, generate_key, jwks_of
from tlsy.rpc.revocation_feed import RevocationFeed, fetch_jwks
from tlsy.rpc.revocations import DenyList
from tlsy.runtime.ids import PrincipalName
from tlsy.runtime.telemetry import open_telemetry
from tlsy.testkit.clock import FakeClock

KEY, NEXT = generate_key(), generate_key()
REVOKED_AT = 1_700_000_000.25


def revocation(principal: str = ALICE, at: float = REVOKED_AT) -> identity_pb2.Revocation:
    made = identity_pb2.Revocation(tenant_id=str(ACME), principal=principal)
    made.revoke_time.FromMicroseconds(int(at * 1e6))
    made.expire_time.FromMicroseconds(int((at + 3600) * 1e6))
    return made


class IdentityStub:
    """Identity, one revocation a page."""

    def __init__(self, *revocations: identity_pb2.Revocation) -> None:
        self.revocations = revocations
        self.keys, self.version = (KEY,), 1
        self.away = False

    async def ListRevocations(self, request, timeout):  # noqa: ASYNC109, N802  the proto's
        if self.away:
            empty = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, empty, empty, "away")
        page = int(request.page_token or 0)
        following = str(page + 1) if page + 1 < len(self.revocations) else ""
        return identity_pb2.ListRevocationsResponse(
            revocations=self.revocations[page : page + 1], next_page_token=following
        )

    async def GetJwks(self, request, timeout):  # noqa: ASYNC109, N802  the proto's
        return identity_pb2.GetJwksResponse(jwks=jwks_of(self.keys), version=self.version)


class Feed:
    def __init__(self, *revocations: identity_pb2.Revocation) -> None:
        self.identity = IdentityStub(*revocations)
        stub = cast("Any", self.identity)
        self.clock = FakeClock()
        self.deny_list = DenyList(self.clock)
        self.jwks = Jwks(lambda: fetch_jwks(stub), self.clock)
        self.telemetry = open_telemetry("ingestion")
        self.feed = RevocationFeed(stub, self.jwks, self.deny_list, self.clock, self.telemetry)

    def age_s(self, of: str) -> float | None:
        return self.telemetry.registry.get_sample_value("tlsy_rpc_trust_age_seconds", {"of": of})

    async def pass_time(self, seconds: float) -> None:
        """Once the feed sleeps."""
        async with asyncio.timeout(60):
            while not self.clock.sleepers:
                await asyncio.sleep(0)
        self.clock.advance(seconds)


def event(kind: str, data: bytes) -> CloudEvent:
    return CloudEvent(
        id=uuid4(),
        type=kind,
        source="identity",
        tenant_id=ACME,
        epoch=1,
        time=datetime.now(UTC),
        key=ACME.hex,
        data=data,
    )


async def test_all_pages_and_the_keys_are_read_at_the_start():
    made = Feed(revocation(), revocation("tenants/acme/users/b"))
    await made.feed.start()
    await asyncio.wait_for(made.feed.wait_ready(), 60)
    assert made.deny_list.refuses(ACME, ALICE, REVOKED_AT)
    assert made.deny_list.refuses(ACME, PrincipalName("tenants/acme/users/b"), REVOKED_AT)
    assert await made.jwks.key(KEY.kid) is not None
    assert made.feed.missing() is None
    await made.feed.stop(0)


async def test_a_service_is_not_ready_before_it_knows_whom_to_refuse():
    made = Feed()
    made.identity.away = True
    assert not await made.feed.snapshot()
    assert made.feed.missing() is not None
    made.identity.away = False
    assert await made.feed.snapshot()


async def test_nobodys_token_is_taken_before_the_revocations_are_known(world: World, client):
    world.deny_list.complete = False
    request = identity_pb2.GetUserRequest(name="tenants/acme/users/u")
    error = await refused(client.identity.GetUser(request, metadata=bearer(world.token("client-admin"))))
    assert (type(error), error.reason) == (Unavailable, "REVOCATIONS_UNAVAILABLE")
    assert error.retry_after_s
    services = bearer(world.service_tokens().token_for("identity"))
    await client.identity.ListRevocations(identity_pb2.ListRevocationsRequest(), metadata=services)


async def test_the_keys_alone_make_nobody_welcome():
    made = Feed(revocation())
    made.identity.away = True
    await made.jwks.refresh()
    assert not await made.feed.snapshot()
    assert (made.jwks.loaded, made.deny_list.complete) == (True, False)
    made.identity.away = False
    await made.feed.snapshot()
    assert made.deny_list.complete


async def test_what_no_event_told_is_read_within_half_a_minute():
    made = Feed()
    await made.feed.start()
    await asyncio.wait_for(made.feed.wait_ready(), 60)
    made.identity.revocations = (revocation(),)
    await made.pass_time(29.9)
    assert (made.age_s("revocations"), made.age_s("keys")) == (29.9, 29.9)
    await made.pass_time(0.2)
    async with asyncio.timeout(60):
        while not made.deny_list.refuses(ACME, ALICE, REVOKED_AT):
            await asyncio.sleep(0)
    await made.feed.stop(0)


async def test_an_older_rotation_does_not_replace_a_newer_set():
    made = Feed()
    newer = SigningKeyRotated(jwks=jwks_of((KEY, NEXT)), version=3).SerializeToString()
    older = SigningKeyRotated(jwks=jwks_of((KEY,)), version=2).SerializeToString()
    for data in (newer, older):
        made.feed.on_event(event(events.SIGNING_KEY_ROTATED, data))
    assert await made.feed.snapshot()
    assert await made.jwks.key(NEXT.kid) is not None


async def test_what_was_read_is_not_replaced_by_an_older_event():
    made = Feed()
    made.identity.keys, made.identity.version = (NEXT,), 3
    assert await made.feed.snapshot()
    older = SigningKeyRotated(jwks=jwks_of((KEY, NEXT)), version=2).SerializeToString()
    made.feed.on_event(event(events.SIGNING_KEY_ROTATED, older))
    assert await made.jwks.key(KEY.kid) is None


async def test_an_event_revokes_at_once():
    made = Feed()
    told = PrincipalRevoked(revocation=revocation(), cause="key")
    made.feed.on_event(event(events.PRINCIPAL_REVOKED, told.SerializeToString()))
    assert made.deny_list.refuses(ACME, ALICE, REVOKED_AT)


async def test_a_rotation_is_taken_from_the_event():
    made = Feed()
    told = SigningKeyRotated(jwks=jwks_of((KEY, NEXT)), signing_kid=NEXT.kid)
    made.feed.on_event(event(events.SIGNING_KEY_ROTATED, told.SerializeToString()))
    assert await made.jwks.key(NEXT.kid) is not None


@pytest.mark.parametrize(("issued_at", "refused"), [(-1.0, True), (0.0, True), (0.001, False)])
def test_tokens_issued_until_the_revocation_are_refused(issued_at, refused):
    deny_list = DenyList(FakeClock())
    deny_list.revoke(ACME, ALICE, revoked_at=REVOKED_AT, expires_at=REVOKED_AT + 1)
    assert deny_list.refuses(ACME, ALICE, REVOKED_AT + issued_at) is refused


def test_the_same_name_in_another_tenant_is_not_refused():
    deny_list = DenyList(FakeClock())
    deny_list.revoke(ACME, ALICE, revoked_at=REVOKED_AT, expires_at=REVOKED_AT + 1)
    assert not deny_list.refuses(OTHER, ALICE, REVOKED_AT)


def test_an_older_revocation_does_not_replace_a_newer_one():
    deny_list = DenyList(FakeClock())
    for at in (REVOKED_AT, REVOKED_AT - 60):
        deny_list.revoke(ACME, ALICE, revoked_at=at, expires_at=at + 3600)
    assert deny_list.refuses(ACME, ALICE, REVOKED_AT)


def test_what_no_token_can_fall_under_any_more_is_forgotten():
    clock = FakeClock()
    now = clock.now().timestamp()
    deny_list = DenyList(clock)
    for number in range(1023):
        principal = PrincipalName(f"tenants/acme/users/{number}")
        deny_list.revoke(ACME, principal, revoked_at=now - 100, expires_at=now - 1)
    deny_list.revoke(ACME, ALICE, revoked_at=now, expires_at=now + 600)
    assert len(deny_list) == 1
