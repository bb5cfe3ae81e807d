from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import pytest

from tlsy.identity.adapters.argon2 import Argon2Passwords
from tlsy.identity.handlers.budgets import Budgets
from tlsy.identity.handlers.log_in import LogIn, LogInCommand
from tlsy.identity.ports import NotAuthenticated, PasswordsBusy
from tlsy.identity.settings import Argon2Cost
from tlsy.rpc.errors import FailedPrecondition, ResourceExhausted, Unauthenticated
from tlsy.runtime.ids import PLATFORM_TENANT_ID
from tlsy.tenancy.context import TenantState
from tlsy.testkit.calls import public_call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsy.rpc.denials import DeniedCalls
    from tlsy.testkit.clock import FakeClock
    from tlsy.testkit.installation import Installation

CALL = public_call("LogIn")


@dataclass
class Sink:
    """Where denials end, and a directory in which no password is ever right."""

    told: list[DeniedCalls] = field(default_factory=list)
    verified: int = 0
    tried: int = 0
    pretended: int = 0
    busy: bool = False

    def denied(self, call: DeniedCalls) -> None:
        self.told.append(call)

    @contextmanager
    def place(self, slug: str) -> Iterator[Sink]:
        if self.busy:
            raise PasswordsBusy
        yield self

    async def verify(self, stored: str | None, password: str) -> bool:
        self.verified += 1
        return False

    async def pretend(self) -> None:
        self.pretended += 1

    async def untried(self, tenant: object, email: str) -> bool:
        return email.startswith("ada")

    async def authenticate(self, tenant: object, email: str, password: str) -> NotAuthenticated:
        with self.place("acme"):
            self.tried += 1
        return NotAuthenticated("PASSWORD_WRONG", None)

    def audit(self, *_: object, **__: object) -> None:
        """Audit records of a transaction are not looked at here."""

    def check_key(self) -> None:
        """There always is one."""

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


def log_in(
    installation: Installation, clock: FakeClock, sink: Sink, passwords: Argon2Passwords | None = None
) -> LogIn:
    """With what a tenant that cannot be entered needs, and nothing else."""
    unused = cast("Any", None)
    return LogIn(
        installation.tenancy("identity"),
        cast("Any", sink),
        users=unused,
        bindings=unused,
        directories=unused,
        passwords=cast("Any", passwords or sink),
        failures=Budgets(clock, size=3, per_s=0.1),
        denials=sink,
        effects=cast("Any", sink),
        issuer=cast("Any", sink),
        lifetime=unused,
    )


async def test_an_unknown_tenant_costs_a_password_check_and_is_told_to_the_platform(
    installation: Installation, fake_clock: FakeClock
) -> None:
    sink = Sink()
    with pytest.raises(Unauthenticated, match="CREDENTIALS_WRONG"):
        await log_in(installation, fake_clock, sink).run(CALL, LogInCommand("nobody", "a@b.org", "x"))
    assert sink.verified == 1
    assert [(call.tenant_id, call.reason) for call in sink.told] == [(PLATFORM_TENANT_ID, "TENANT_UNKNOWN")]


async def test_a_suspended_tenant_is_told_to_that_tenants_log(
    installation: Installation, fake_clock: FakeClock
) -> None:
    tenant = await installation.provisioned_tenant(slug="asleep", state=TenantState.SUSPENDED)
    sink = Sink()
    with pytest.raises(FailedPrecondition, match="TENANT_NOT_ACTIVE"):
        await log_in(installation, fake_clock, sink).run(CALL, LogInCommand("asleep", "a@b.org", "x"))
    assert [(call.tenant_id, call.reason) for call in sink.told] == [(tenant.tenant_id, "TENANT_NOT_ACTIVE")]


async def test_too_many_are_answered_alike_and_unread_until_they_are_forgiven(
    installation: Installation, fake_clock: FakeClock
) -> None:
    tenant = await installation.provisioned_tenant(slug="acme")
    sink = Sink()
    handler = log_in(installation, fake_clock, sink)
    answers = set()
    for _ in range(5):
        for slug in ("nobody", "nowhere", "acme"):
            with pytest.raises(Unauthenticated) as caught:
                await handler.run(CALL, LogInCommand(slug, "a@b.org", "x"))
            answers.add((caught.value.reason, caught.value.message))
    assert len(answers) == 1
    assert (sink.verified, sink.tried, sink.pretended) == (3, 3, 7 + 2)
    assert [call.tenant_id for call in sink.told if call.reason == "LOG_IN_RATE"] == [tenant.tenant_id] * 2
    fake_clock.advance(10)
    with pytest.raises(Unauthenticated):
        await handler.run(CALL, LogInCommand("nobody", "a@b.org", "x"))
    assert sink.verified == 4


async def test_tenants_that_are_not_there_take_nothing_from_those_that_are(
    installation: Installation, fake_clock: FakeClock
) -> None:
    await installation.platform_tenant()
    sink = Sink()
    handler = log_in(installation, fake_clock, sink)
    for slug in ["nobody"] * 5 + ["platform"]:
        with pytest.raises(Unauthenticated):
            await handler.run(CALL, LogInCommand(slug, "a@b.org", "x"))
    assert sink.tried == 1


async def test_who_has_not_failed_is_read_although_others_have_too_often(
    installation: Installation, fake_clock: FakeClock
) -> None:
    await installation.provisioned_tenant(slug="acme")
    sink = Sink()
    handler = log_in(installation, fake_clock, sink)
    for email in ["a@b.org"] * 5 + ["ada@b.org"]:
        with pytest.raises(Unauthenticated):
            await handler.run(CALL, LogInCommand("acme", email, "x"))
    assert sink.tried == 4


@pytest.mark.parametrize("slug", ["acme", "nobody"])
async def test_too_many_at_once_are_told_to_try_again(
    installation: Installation, fake_clock: FakeClock, slug: str
) -> None:
    await installation.provisioned_tenant(slug="acme")
    with pytest.raises(ResourceExhausted, match="LOG_IN_BUSY") as caught:
        await log_in(installation, fake_clock, Sink(busy=True)).run(CALL, LogInCommand(slug, "a@b.org", "x"))
    assert caught.value.retry_after_s == 1.0


async def test_nor_does_it_tell_that_several_tenants_are_not_there(
    installation: Installation, fake_clock: FakeClock
) -> None:
    """As if each were there: those have their own share of the places."""
    passwords = Argon2Passwords(Argon2Cost(memory_kib=64, passes=1, concurrency=1, queue=3), os.urandom)
    handler = log_in(installation, fake_clock, Sink(), passwords)
    attempts = (handler.run(CALL, LogInCommand(f"nobody-{n}", "a@b.org", "x")) for n in range(4))
    refused = await asyncio.gather(*attempts, return_exceptions=True)
    assert [cast("Any", each).reason for each in refused] == ["CREDENTIALS_WRONG"] * 4
