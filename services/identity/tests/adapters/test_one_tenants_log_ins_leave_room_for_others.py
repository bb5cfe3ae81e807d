from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from services.identity.tests.adapters.test_a_first_log_in_waits_for_a_change_of_roles import AWAITED
from tlsy.identity.adapters.argon2 import Argon2Passwords
from tlsy.identity.adapters.embedded_directory import EmbeddedDirectory
from tlsy.identity.adapters.postgres import read_statements
from tlsy.identity.adapters.postgres.users import PostgresUsers
from tlsy.identity.adapters.sealing import LookupHash, Sealer
from tlsy.identity.domain.lockout import LockoutPolicy
from tlsy.identity.ports import NotAuthenticated, PasswordsBusy
from tlsy.identity.settings import Argon2Cost
from tlsy.tenancy.context import IsolationMode

if TYPE_CHECKING:
    from tlsy.testkit.clock import FakeClock
    from tlsy.testkit.installation import Installation

COST = Argon2Cost(memory_kib=64, passes=1, concurrency=1, queue=3)
POLICY = LockoutPolicy(max_failures=5, window_s=60, lock_s=30, max_lock_s=60)


async def test_although_its_database_keeps_all_of_them_waiting(
    installation: Installation, fake_clock: FakeClock
) -> None:
    stuck = await installation.provisioned_tenant(IsolationMode.DEDICATED)
    other = await installation.provisioned_tenant()
    users = PostgresUsers(read_statements(), Sealer({"k": bytes(32)}, "k", os.urandom), LookupHash(bytes(32)))
    passwords = Argon2Passwords(COST, os.urandom)
    directory = EmbeddedDirectory(installation.tenancy("identity"), users, passwords, fake_clock, POLICY)
    everything = await installation.connect(None, stuck.placement)
    async with everything.transaction():
        await everything.execute(f"lock table {stuck.placement.schema}.users")
        waiting = [asyncio.create_task(directory.authenticate(stuck, "a@b.org", "x")) for _ in range(4)]
        async with asyncio.timeout(60):
            while not await everything.fetchval(AWAITED):
                await asyncio.sleep(0.01)
        found = await directory.authenticate(other, "a@b.org", "x")
    assert isinstance(found, NotAuthenticated)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [NotAuthenticated] * 2 + [PasswordsBusy] * 2
