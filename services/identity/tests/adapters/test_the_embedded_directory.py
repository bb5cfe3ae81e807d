from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest

from tlsy.identity.adapters.embedded_directory import EmbeddedDirectory
from tlsy.identity.adapters.key_ring import KeyRing
from tlsy.identity.adapters.postgres import read_statements
from tlsy.identity.adapters.postgres.directories import PostgresDirectories
from tlsy.identity.adapters.postgres.role_bindings import PostgresRoleBindings
from tlsy.identity.adapters.postgres.users import PostgresUsers
from tlsy.identity.adapters.sealing import LookupHash, Sealer
from tlsy.identity.domain.ids import UserId
from tlsy.identity.domain.lockout import Attempts, LockoutPolicy
from tlsy.identity.domain.users import User
from tlsy.identity.handlers.budgets import Budgets
from tlsy.identity.handlers.issuing import Issuer
from tlsy.identity.handlers.log_in import LogIn, LogInCommand
from tlsy.identity.ports import Authenticated, NotAuthenticated, PasswordsBusy
from tlsy.rpc.errors import Unavailable
from tlsy.testkit.calls import public_call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsy.tenancy.catalog import TenantEntry
    from tlsy.testkit.clock import FakeClock
    from tlsy.testkit.installation import Installation

POLICY = LockoutPolicy(max_failures=2, window_s=60, lock_s=30, max_lock_s=60)


@dataclass
class PlainPasswords:
    """Passwords in clear, and what was looked at."""

    looked_at: list[str | None] = field(default_factory=list)
    busy: bool = False

    @contextmanager
    def place(self, slug: str) -> Iterator[PlainPasswords]:
        if self.busy:
            raise PasswordsBusy
        yield self

    async def hash(self, password: str) -> str:
        return password

    async def verify(self, stored: str | None, password: str) -> bool:
        self.looked_at.append(stored)
        return stored == password

    async def pretend(self) -> None:
        """Nothing here takes time."""

    def outdated(self, stored: str) -> bool:
        return stored.startswith("old")


@dataclass
class Effects:
    """Without audit records, which are not looked at here."""

    clock: FakeClock

    def now(self) -> datetime:
        return self.clock.now()

    def audit(self, *_: object, **__: object) -> None:
        """See the class."""


@dataclass
class World:
    directory: EmbeddedDirectory
    users: PostgresUsers
    passwords: PlainPasswords
    tenant: TenantEntry

    async def outcome(self, email: str, password: str) -> str:
        found = await self.directory.authenticate(self.tenant, email, password)
        return found.cause if isinstance(found, NotAuthenticated) else "OK"


@pytest.fixture
async def world(installation: Installation, fake_clock: FakeClock) -> World:
    users = PostgresUsers(
        read_statements(), Sealer({"k": os.urandom(32)}, "k", os.urandom), LookupHash(os.urandom(32))
    )
    tenancy, tenant = installation.tenancy("identity"), await installation.provisioned_tenant()
    people = {"ada@x.org": ("right", False), "off@x.org": ("right", True), "none@x.org": (None, False)}
    async with tenancy.transaction(tenant.context, write=True) as tx:
        for email, (stored, disabled) in people.items():
            await users.insert(tx, user(email, stored, disabled=disabled))
        await users.insert(tx, user("old@x.org", "old password"))
    passwords = PlainPasswords()
    return World(EmbeddedDirectory(tenancy, users, passwords, fake_clock, POLICY), users, passwords, tenant)


def user(email: str, stored: str | None, *, disabled: bool = False) -> User:
    return User(
        id=UserId(uuid4()),
        email=email,
        display_name="",
        locale="",
        disabled=disabled,
        password_hash=stored,
        attempts=Attempts(),
        create_time=datetime(2026, 1, 1, tzinfo=UTC),
        last_log_in_time=None,
        version=1,
    )


@pytest.mark.parametrize(
    ("email", "cause"),
    [("nobody@x.org", "USER_UNKNOWN"), ("off@x.org", "USER_DISABLED"), ("none@x.org", "NO_PASSWORD")],
)
async def test_who_cannot_log_in_costs_one_password_check_like_everybody(
    world: World, email: str, cause: str
) -> None:
    assert await world.outcome(email, "right") == cause
    assert world.passwords.looked_at == [None]


async def test_a_locked_account_costs_one_check_and_its_hash_is_not_looked_at(
    world: World, fake_clock: FakeClock
) -> None:
    for _ in range(2):
        assert await world.outcome("ada@x.org", "wrong") == "PASSWORD_WRONG"
    assert await world.outcome("ada@x.org", "right") == "ACCOUNT_LOCKED"
    assert world.passwords.looked_at[-1] is None
    fake_clock.advance(30)
    assert await world.outcome("ada@x.org", "right") == "OK"


async def test_who_is_turned_away_because_there_are_too_many_has_not_tried(world: World) -> None:
    world.passwords.busy = True
    for _ in range(2 * POLICY.max_failures):
        with pytest.raises(PasswordsBusy):
            await world.outcome("ada@x.org", "right")
    world.passwords.busy = False
    assert await world.outcome("ada@x.org", "wrong") == "PASSWORD_WRONG"
    assert await world.outcome("ada@x.org", "right") == "OK"


async def test_nor_has_who_comes_before_there_is_a_key_to_sign_with(
    world: World, installation: Installation, fake_clock: FakeClock
) -> None:
    unused = cast("Any", None)
    sql = read_statements()
    handler = LogIn(
        installation.tenancy("identity"),
        world.directory,
        users=world.users,
        bindings=PostgresRoleBindings(sql),
        directories=PostgresDirectories(sql),
        passwords=cast("Any", world.passwords),
        failures=Budgets(fake_clock, size=9, per_s=1),
        denials=unused,
        effects=cast("Any", Effects(fake_clock)),
        issuer=Issuer(KeyRing(unused), fake_clock, uuid4),
        lifetime=timedelta(minutes=10),
    )
    for _ in range(2 * POLICY.max_failures):
        with pytest.raises(Unavailable, match="SIGNING_KEY_UNAVAILABLE"):
            await handler.run(public_call("LogIn"), LogInCommand(world.tenant.slug, "ada@x.org", "right"))
    assert await world.outcome("ada@x.org", "right") == "OK"


async def test_untried_is_a_user_without_a_wrong_password_lately(world: World, fake_clock: FakeClock) -> None:
    assert await world.directory.untried(world.tenant, " ADA@x.org")
    assert not await world.directory.untried(world.tenant, "nobody@x.org")
    await world.outcome("ada@x.org", "wrong")
    assert not await world.directory.untried(world.tenant, "ada@x.org")
    fake_clock.advance(POLICY.window_s)
    assert await world.directory.untried(world.tenant, "ada@x.org")


async def test_an_outdated_hash_is_replaced_at_log_in(world: World) -> None:
    found = await world.directory.authenticate(world.tenant, "old@x.org", "old password")
    assert isinstance(found, Authenticated)
    assert (found.proof, found.rehashed) == ("old password", "old password")
