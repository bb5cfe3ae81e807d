from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tlsy.contracts.audit_log.events.v1.events_pb2 import AuditRecorded
from tlsy.contracts.events import SIGNING_KEY_ROTATED
from tlsy.contracts.identity.events.v1.events_pb2 import SigningKeyRotated
from tlsy.identity.adapters.key_ring import KeyRing
from tlsy.identity.adapters.postgres import read_statements
from tlsy.identity.adapters.postgres.control import PostgresRevocationIndex, PostgresSigningKeys
from tlsy.identity.adapters.postgres.directories import PostgresDirectories
from tlsy.identity.adapters.sealing import LookupHash, Sealer
from tlsy.identity.domain.signing import RotationPolicy
from tlsy.identity.handlers.effects import Effects
from tlsy.identity.handlers.indexing import IndexRevocations
from tlsy.identity.handlers.rotate_signing_key import RotateSigningKey
from tlsy.rpc.audit import AuditTrail
from tlsy.runtime.ids import Uuid7
from tlsy.tenancy.context import PLATFORM
from tlsy.testkit.clock import FakeClock

if TYPE_CHECKING:
    from tlsy.testkit.installation import Installation

POLICY = RotationPolicy(
    period_s=1000, cache_s=300, refresh_s=5, token_s=600, leeway_s=60, keep_retired_s=10_000
)
KEY = os.urandom(32)


@pytest.fixture
def clock() -> FakeClock:
    """From now on: the outbox has partitions around today."""
    return FakeClock(datetime.now(UTC))


def replica(installation: Installation, clock: FakeClock) -> tuple[RotateSigningKey, KeyRing]:
    statements, ids = read_statements(), Uuid7(clock, os.urandom)
    ring = KeyRing(Sealer({"k": KEY}, "k", os.urandom))
    effects = Effects(
        PostgresDirectories(statements),
        AuditTrail("identity", clock, ids),
        IndexRevocations(installation.tenancy("identity"), PostgresRevocationIndex(statements)),
        keyed=LookupHash(KEY),
        clock=clock,
        ids=ids,
        longest_token=timedelta(hours=1),
    )
    rotate = RotateSigningKey(
        installation.tenancy("identity"),
        PostgresSigningKeys(statements),
        PostgresRevocationIndex(statements),
        tokens=ring,
        effects=effects,
        policy=POLICY,
    )
    return rotate, ring


async def slots(installation: Installation) -> list[str]:
    async with installation.tenancy("identity").control(PLATFORM, write=False) as tx:
        return [row["slot"] for row in await tx.fetch("select slot from signing_keys order by slot")]


async def duties(installation: Installation) -> list[tuple[str, str]]:
    async with installation.tenancy("identity").control(PLATFORM, write=False) as tx:
        rows = await tx.fetch("select data from outbox where type = 'tlsy.identity.audit.recorded.v1'")
    records = [AuditRecorded.FromString(row["data"]) for row in rows]
    return [(record.method, record.principal) for record in records]


async def test_replicas_that_work_at_the_same_moment_change_the_ring_once(
    installation: Installation, clock: FakeClock
) -> None:
    (one, ring), (two, other) = replica(installation, clock), replica(installation, clock)
    await asyncio.gather(*(rotate.by_clock() for rotate in (one, two) * 4))
    assert await slots(installation) == ["next", "signing"]
    clock.advance(POLICY.period_s)
    await asyncio.gather(*(rotate.by_clock() for rotate in (one, two) * 4))
    assert await slots(installation) == ["next", "signing", "verifying"]
    assert await duties(installation) == [("services/identity/rotate-signing-key", "services/identity")] * 2
    assert ring.signing_kid == other.signing_kid


async def test_a_set_of_keys_is_never_replaced_by_an_older_one(
    installation: Installation, clock: FakeClock
) -> None:
    (rotate, ring), store = replica(installation, clock), PostgresSigningKeys(read_statements())
    await rotate.by_clock()
    async with installation.tenancy("identity").control(PLATFORM, write=False) as tx:
        old = await store.read(tx)
    clock.advance(POLICY.period_s)
    await rotate.by_clock()
    newer = ring.jwks()
    ring.adopt(old)
    assert ring.jwks() == newer
    assert newer[1] == old.version + 1 == 2
    async with installation.tenancy("identity").control(PLATFORM, write=False) as tx:
        told = await tx.fetch("select data from outbox where type = $1 order by seq", SIGNING_KEY_ROTATED)
    assert [SigningKeyRotated.FromString(row["data"]).version for row in told] == [1, 2]


async def test_a_key_is_retired_without_its_private_part_when_its_last_token_is_over(
    installation: Installation, clock: FakeClock
) -> None:
    rotate, _ = replica(installation, clock)
    await rotate.by_clock()
    clock.advance(POLICY.period_s)
    await rotate.by_clock()
    clock.advance(POLICY.overlap.total_seconds())
    await rotate.by_clock()
    assert await slots(installation) == ["next", "retired", "signing"]
    async with installation.tenancy("identity").control(PLATFORM, write=False) as tx:
        kept = await tx.fetchval("select private_sealed from signing_keys where slot = 'retired'")
    assert kept is None
