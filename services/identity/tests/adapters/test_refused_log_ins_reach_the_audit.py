from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from tlsy.identity.handlers.effects import own_duty
from tlsy.identity.handlers.log_in import FailureBudgets, LogIn, LogInCommand
from tlsy.identity.ports import PasswordsBusy
from tlsy.rpc.errors import FailedPrecondition, ResourceExhausted, Unauthenticated
from tlsy.runtime.ids import PLATFORM_TENANT_ID
from tlsy.tenancy.context import TenantState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsy.rpc.denials import DeniedCalls
    from tlsy.testkit.clock import FakeClock
    from tlsy.testkit.installation import Installation

CALL = own_duty("LogIn")


@dataclass
class Sink:
    """Where denials end, and passwords that are never right."""

    told: list[DeniedCalls] = field(default_factory=list)
    verified: int = 0
    busy: bool = False

    def denied(self, call: DeniedCalls) -> None:
        self.told.append(call)

    @contextmanager
    def place(self) -> Iterator[Sink]:
        if self.busy:
            raise PasswordsBusy
        yield self

    async def verify(self, stored: str | None, password: str) -> bool:
        self.verified += 1
        return False


def log_in(installation: Installation, clock: FakeClock, sink: Sink) -> LogIn:
    """With what a tenant that cannot be entered needs, and nothing else."""
    unused = cast("Any", None)
    return LogIn(
        installation.tenancy("identity"),
        unused,
        users=unused,
        bindings=unused,
        directories=unused,
        passwords=cast("Any", sink),
        budgets=FailureBudgets(clock, size=3, per_s=0.1),
        denials=sink,
        effects=cast("Any", clock),
        issuer=unused,
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


async def test_too_many_refusals_are_refused_unread_until_they_are_forgiven(
    installation: Installation, fake_clock: FakeClock
) -> None:
    sink = Sink()
    handler, command = log_in(installation, fake_clock, sink), LogInCommand("nobody", "a@b.org", "x")
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await handler.run(CALL, command)
    with pytest.raises(ResourceExhausted) as caught:
        await handler.run(CALL, command)
    assert caught.value.retry_after_s == pytest.approx(10)
    assert sink.verified == 3
    fake_clock.advance(10)
    with pytest.raises(Unauthenticated):
        await handler.run(CALL, command)
