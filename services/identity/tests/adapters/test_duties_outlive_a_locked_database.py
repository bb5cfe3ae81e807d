from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import pytest

from tlsy.identity.adapters.key_ring import KeyRing
from tlsy.identity.adapters.postgres import read_statements
from tlsy.identity.adapters.postgres.control import PostgresRevocationIndex, PostgresSigningKeys
from tlsy.identity.adapters.postgres.directories import PostgresDirectories
from tlsy.identity.adapters.sealing import LookupHash, Sealer
from tlsy.identity.domain.signing import RotationPolicy
from tlsy.identity.handlers.duties import BootstrapOnce, KeepSigningKeys
from tlsy.identity.handlers.effects import Effects
from tlsy.identity.handlers.rotate_signing_key import RotateSigningKey
from tlsy.rpc.audit import AuditTrail
from tlsy.runtime.ids import Uuid7
from tlsy.tenancy.context import PLATFORM
from tlsy.tenancy.database import PoolLimits
from tlsy.testkit.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tlsy.testkit.installation import Installation

IMPATIENT = PoolLimits(lock_timeout_s=0.05)
POLICY = RotationPolicy(
    period_s=1000, cache_s=300, refresh_s=5, token_s=600, leeway_s=60, keep_retired_s=10_000
)


@asynccontextmanager
async def running(duty: Any) -> AsyncIterator[asyncio.Task[None]]:
    stopping = asyncio.Event()
    task = asyncio.create_task(duty.run(stopping))
    try:
        yield task
    finally:
        stopping.set()
        await asyncio.gather(task, return_exceptions=True)


async def asleep(clock: FakeClock, task: asyncio.Task[None]) -> None:
    """Return once the duty has had its turn and waits for the next; fail if it ended."""
    async with asyncio.timeout(60):
        while not clock.sleepers:
            assert not task.done(), task.exception()
            await asyncio.sleep(0.01)


async def test_keys_are_kept_and_used_although_the_ring_is_locked(installation: Installation) -> None:
    clock, sql = FakeClock(datetime.now(UTC)), read_statements()
    ring, ids = KeyRing(Sealer({"k": bytes(32)}, "k", os.urandom)), Uuid7(clock, os.urandom)
    tenancy, store = installation.tenancy("identity", IMPATIENT), PostgresSigningKeys(sql)
    effects = Effects(
        PostgresDirectories(sql),
        AuditTrail("identity", clock, ids),
        cast("Any", None),
        keyed=LookupHash(bytes(32)),
        clock=clock,
        ids=ids,
        longest_token=timedelta(hours=1),
    )
    index = PostgresRevocationIndex(sql)
    rotate = RotateSigningKey(tenancy, store, index, tokens=ring, effects=effects, policy=POLICY)
    async with running(KeepSigningKeys(rotate, clock, refresh_s=5, works=True)) as task:
        await asleep(clock, task)
        before = ring.signing_kid
        async with installation.tenancy("identity").control(PLATFORM, write=True) as tx:
            await store.lock(tx)
            clock.advance(POLICY.period_s)
            await asleep(clock, task)
            assert ring.signing_kid == before
        clock.advance(5)
        await asleep(clock, task)
        assert ring.signing_kid != before


@pytest.mark.parametrize(
    "trouble",
    [
        asyncpg.LockNotAvailableError("lock timeout"),
        asyncpg.QueryCanceledError("statement timeout"),
        asyncpg.InterfaceError("closed"),
        TimeoutError(),
    ],
)
async def test_the_first_administrator_waits_for_a_database_in_trouble(trouble: Exception) -> None:
    clock = FakeClock()

    class Bootstrap:
        async def run(self) -> None:
            raise trouble

    async with running(BootstrapOnce(cast("Any", Bootstrap()), clock)) as task:
        await asleep(clock, task)


async def test_and_not_for_a_file_that_cannot_be_written() -> None:
    class Bootstrap:
        async def run(self) -> None:
            raise PermissionError("the key's file")

    async with running(BootstrapOnce(cast("Any", Bootstrap()), FakeClock())) as task:
        with pytest.raises(PermissionError):
            await task
