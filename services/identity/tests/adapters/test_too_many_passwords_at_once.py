from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest

from tlsy.identity.domain.ids import PrincipalKind, PrincipalRef, UserId
from tlsy.identity.domain.lockout import Attempts
from tlsy.identity.domain.users import User
from tlsy.identity.handlers.create_user import CreateUser, CreateUserCommand
from tlsy.identity.handlers.set_password import SetPassword, SetPasswordCommand
from tlsy.identity.ports import PasswordsBusy
from tlsy.rpc.errors import ResourceExhausted
from tlsy.testkit.calls import public_call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsy.testkit.installation import Installation

UNUSED = cast("Any", None)
ADA = UserId(uuid4())


@dataclass
class Busy:
    """No place for a password; one user; a directory that notes who tried."""

    tried: list[str] = field(default_factory=list)

    @contextmanager
    def place(self, slug: str) -> Iterator[Any]:
        raise PasswordsBusy
        yield

    async def get(self, tx: object, user_id: UserId) -> User:
        return User(
            id=user_id,
            email="ada@x.org",
            display_name="",
            locale="",
            disabled=False,
            password_hash="",
            attempts=Attempts(),
            create_time=datetime(2026, 1, 1, tzinfo=UTC),
            last_log_in_time=None,
            version=1,
        )

    async def authenticate(self, tenant: object, email: str, password: str) -> None:
        self.tried.append(email)


async def test_a_user_is_not_made(installation: Installation) -> None:
    call = replace(public_call("CreateUser"), tenant=await installation.provisioned_tenant())
    command = CreateUserCommand(
        email="ada@x.org", display_name="", locale="", disabled=False, password="a long enough passphrase"
    )
    handler = CreateUser(UNUSED, UNUSED, UNUSED, cast("Any", Busy()), UNUSED)
    with pytest.raises(ResourceExhausted, match="PASSWORDS_BUSY") as caught:
        await handler.run(call, command)
    assert caught.value.retry_after_s == 1.0


async def test_a_password_is_not_changed_and_the_old_one_not_tried(installation: Installation) -> None:
    tenant, busy = await installation.provisioned_tenant(), cast("Any", Busy())
    name = PrincipalRef(PrincipalKind.USER, ADA).name(tenant.slug)

    @dataclass
    class Ada:
        principal: str = name

        def required_tenant(self) -> Any:
            return tenant

    handler = SetPassword(
        installation.tenancy("identity"),
        busy,
        bindings=UNUSED,
        directories=UNUSED,
        directory=busy,
        passwords=busy,
        effects=UNUSED,
    )
    command = SetPasswordCommand(ADA, "a long enough passphrase", "the old passphrase")
    with pytest.raises(ResourceExhausted, match="PASSWORDS_BUSY"):
        await handler.run(cast("Any", Ada()), command)
    assert busy.tried == []
