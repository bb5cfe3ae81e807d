from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from services.identity.tests.adapters.test_nothing_issued_outlives_a_revocation import (
    ADA,
    KEY,
    NOW,
    Replica,
    replicas,
)
from tlsy.identity.domain.bindings import RoleBinding
from tlsy.identity.domain.ids import BindingId, PrincipalKind, PrincipalRef
from tlsy.identity.handlers.budgets import Budgets
from tlsy.identity.handlers.issuing import Issuer
from tlsy.identity.handlers.log_in import LogIn, LogInCommand
from tlsy.identity.ports import Authenticated
from tlsy.testkit.calls import public_call
from tlsy.testkit.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from tlsy.testkit.installation import Installation

#: Whether somebody waits for what the asking transaction has locked. In pg_stat_activity it would see only
#: those who were connected when it first looked.
AWAITED = """
select exists (select from pg_locks where not granted and pg_backend_pid() = any (pg_blocking_pids(pid)))
"""


class RightPassword:
    """Of Ada, whatever it is."""

    async def authenticate(self, *_: object) -> Authenticated:
        return Authenticated(ADA, "", None)


async def log_in(one: Replica) -> None:
    unused = cast("Any", None)
    handler = LogIn(
        one.tenancy,
        cast("Any", RightPassword()),
        users=one.users,
        bindings=one.bindings,
        directories=one.directories,
        passwords=unused,
        failures=Budgets(one.clock, size=9, per_s=1),
        denials=unused,
        effects=one.effects,
        issuer=Issuer(one.ring, one.clock, one.ids),
        lifetime=timedelta(minutes=10),
    )
    await handler.run(public_call("LogIn"), LogInCommand(one.tenant.slug, "", ""))


async def comes_in_behind(one: Replica, coming: Awaitable[object], lock: Any) -> None:
    """Begin to change roles, let somebody come in, and go on to the principal."""
    async with one.tenancy.transaction(one.tenant.context, write=True) as tx:
        await one.directories.lock(tx)
        task = asyncio.ensure_future(coming)
        async with asyncio.timeout(60):
            while not (task.done() or await tx.fetchval(AWAITED)):
                await asyncio.sleep(0.01)
        await lock(tx)
    await task
    async with one.tenancy.transaction(one.tenant.context, write=False) as tx:
        assert (await one.directories.read(tx)).onboarded


async def test_of_a_person(installation: Installation) -> None:
    one = Replica(installation, await installation.provisioned_tenant(), FakeClock(NOW), None)
    await one.make_user()
    await comes_in_behind(one, log_in(one), lambda tx: one.users.lock(tx, ADA))


async def test_of_a_key(installation: Installation) -> None:
    one, _ = await replicas(installation)
    ref = PrincipalRef(PrincipalKind.API_KEY, KEY)
    administers = RoleBinding(
        id=BindingId(uuid4()), principal=ref, role="client-admin", module="", create_time=NOW
    )
    async with one.tenancy.transaction(one.tenant.context, write=True) as tx:
        await one.bindings.insert(tx, administers)
    await comes_in_behind(one, one.issued_at(), lambda tx: one.keys.lock(tx, KEY))


async def test_not_of_a_key_that_administers_nothing(installation: Installation) -> None:
    one, _ = await replicas(installation)
    async with one.tenancy.transaction(one.tenant.context, write=True) as tx:
        await one.directories.lock(tx)
        await asyncio.wait_for(one.issued_at(), 60)
