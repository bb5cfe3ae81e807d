from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
import pytest

from tlsy.contracts.events import SIGNING_KEY_ROTATED
from tlsy.contracts.identity.v1 import identity_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def kids(suite, replica: int = 0) -> set[str]:
    answer = await suite.stub(replica=replica).GetJwks(pb.GetJwksRequest())
    return {key["kid"] for key in json.loads(answer.jwks)["keys"]}


async def rotate(suite, request_id: str = "") -> Any:
    """As soon as every verifier can know the next key."""
    request = pb.RotateSigningKeyRequest(request_id=request_id or str(uuid4()))
    stub = suite.stub(await suite.root())
    async with asyncio.timeout(60):
        while True:
            try:
                return await stub.RotateSigningKey(request)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                    raise
            await asyncio.sleep(0.05)


async def test_no_call_fails_while_keys_are_rotated_under_load(suite) -> None:
    _, secret = await suite.api_key("shared", "client-admin")
    early = await suite.key_token(secret)
    done, failures = asyncio.Event(), []
    calls = 0

    async def client(number: int) -> None:
        nonlocal calls
        while not done.is_set():
            try:
                token = early if number % 2 else await suite.key_token(secret, replica=number % 3 % 2)
                request = pb.ListRolesRequest(parent="tenants/acme")
                await suite.stub(token, (number + calls) % 2).ListRoles(request)
                calls += 1
            except grpc.aio.AioRpcError as error:
                failures.append((error.code(), error.details()))

    clients = [asyncio.create_task(client(number)) for number in range(6)]
    signing = [(await rotate(suite)).signing_kid for _ in range(3)]
    done.set()
    await asyncio.gather(*clients)
    assert failures == []
    assert len(set(signing)) == 3
    assert calls > 10
    assert set(signing) <= await kids(suite)


async def test_a_rotation_announces_the_key_after_next_and_tells_everybody(suite, wait_until) -> None:
    rotated = await rotate(suite)

    async def known_at_both() -> bool:
        wanted = {rotated.signing_kid, rotated.next_kid}
        return wanted <= await kids(suite) and wanted <= await kids(suite, 1)

    await wait_until(known_at_both, 60.0)
    async with suite.administrator(suite.installation.control) as connection:
        ring = await connection.fetch("select slot, private_sealed from identity.signing_keys")
        events = await connection.fetchval(
            "select count(*) from identity.outbox where type = $1", SIGNING_KEY_ROTATED
        )
    assert events >= 1
    assert sorted(row["slot"] for row in ring)[:2] == ["next", "signing"]
    assert all(b'"d"' not in (row["private_sealed"] or b"") for row in ring)


async def test_a_rotation_sent_twice_happens_once(suite) -> None:
    request_id = str(uuid4())
    assert await rotate(suite, request_id) == await rotate(suite, request_id)


async def test_a_key_that_not_everybody_can_know_does_not_sign_yet(suite, refused) -> None:
    rotated = await rotate(suite)
    error = await refused(suite.stub(await suite.root()).RotateSigningKey(pb.RotateSigningKeyRequest()))
    assert (type(error).__name__, error.reason) == ("FailedPrecondition", "NEXT_KEY_TOO_NEW")
    assert datetime.fromisoformat(error.metadata["ready_time"]) > datetime.now(UTC) - timedelta(seconds=5)
    assert (await suite.signer()).kid == rotated.signing_kid


async def test_a_tenants_administrator_rotates_nothing(suite, refused) -> None:
    error = await refused(
        suite.stub(await suite.into("shared")).RotateSigningKey(pb.RotateSigningKeyRequest())
    )
    assert error.reason == "PLATFORM_ONLY"
