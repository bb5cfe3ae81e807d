from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest

from tlsy.contracts.audit_log.events.v1.events_pb2 import AuditRecorded
from tlsy.identity.adapters.postgres import read_statements
from tlsy.identity.adapters.postgres.directories import PostgresDirectories
from tlsy.identity.adapters.postgres.role_bindings import PostgresRoleBindings
from tlsy.identity.adapters.postgres.users import PostgresUsers
from tlsy.identity.adapters.sealing import LookupHash, Sealer
from tlsy.identity.domain.ids import PrincipalKind, PrincipalRef, UserId
from tlsy.identity.domain.lockout import Attempts
from tlsy.identity.domain.users import User
from tlsy.identity.handlers.budgets import Budgets
from tlsy.identity.handlers.effects import Effects
from tlsy.identity.handlers.log_in import LogIn, LogInCommand
from tlsy.identity.handlers.set_password import SetPassword, SetPasswordCommand
from tlsy.identity.ports import Authenticated
from tlsy.rpc.audit import AuditTrail
from tlsy.rpc.errors import PermissionDenied, Unauthenticated
from tlsy.runtime.ids import Uuid7
from tlsy.testkit.calls import public_call
from tlsy.testkit.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsy.tenancy.catalog import TenantEntry
    from tlsy.testkit.installation import Installation

UNUSED = cast("Any", None)
NOW, ADA = datetime.now(UTC), UserId(uuid4())
USER = User(
    id=ADA,
    email="ada@x.org",
    display_name="",
    locale="",
    disabled=False,
    password_hash="the right hash",
    attempts=Attempts(),
    create_time=NOW,
    last_log_in_time=None,
    version=1,
)


@dataclass
class World:
    """Where the password was right, and then the user was changed before that took effect."""

    installation: Installation
    tenant: TenantEntry
    change: User | None

    def __post_init__(self) -> None:
        sql, clock = read_statements(), FakeClock(NOW)
        ids = Uuid7(clock, os.urandom)
        self.tenancy = self.installation.tenancy("identity")
        self.directories = PostgresDirectories(sql)
        self.users = PostgresUsers(sql, Sealer({"k": bytes(32)}, "k", os.urandom), LookupHash(bytes(32)))
        self.failures: Any = Budgets(clock, size=9, per_s=1)
        self.effects = Effects(
            self.directories,
            AuditTrail("identity", clock, ids),
            UNUSED,
            keyed=LookupHash(bytes(32)),
            clock=clock,
            ids=ids,
            longest_token=timedelta(hours=1),
        )

    async def authenticate(self, tenant: object, email: str, password: str) -> Authenticated:
        async with self.tenancy.transaction(self.tenant.context, write=True) as tx:
            if self.change is None:
                await self.users.delete(tx, ADA)
            else:
                await self.users.save(tx, self.change)
        return Authenticated(ADA, "the right hash", None)

    def check_key(self) -> None:
        """There is one to sign with."""

    async def log_in(self) -> None:
        handler = LogIn(
            self.tenancy,
            cast("Any", self),
            users=self.users,
            bindings=PostgresRoleBindings(read_statements()),
            directories=self.directories,
            passwords=UNUSED,
            failures=self.failures,
            denials=UNUSED,
            effects=self.effects,
            issuer=cast("Any", self),
            lifetime=UNUSED,
        )
        await handler.run(public_call("LogIn"), LogInCommand("acme", "ada@x.org", "right"))

    async def set_password(self) -> None:
        other: Any = self
        handler = SetPassword(
            self.tenancy,
            self.users,
            bindings=UNUSED,
            directories=self.directories,
            directory=other,
            passwords=other,
            effects=self.effects,
        )
        await handler.run(self.call(), SetPasswordCommand(ADA, "a brand new passphrase", "right"))

    def call(self) -> Any:
        name, tenant = PrincipalRef(PrincipalKind.USER, ADA).name("acme"), self.tenant

        class Ada:
            principal = name
            claims = None
            tenant_id = tenant.tenant_id
            method = correlation_id = trace_id = traceparent = ""
            request_id = None
            peer = ""

            def required_tenant(self) -> TenantEntry:
                return tenant

        return Ada()

    @contextmanager
    def place(self, slug: str) -> Iterator[World]:
        yield self

    async def hash(self, password: str) -> str:
        return password

    async def outcomes(self) -> list[str]:
        everything = await self.installation.connect(None, self.tenant.placement)
        rows = await everything.fetch(
            "select data from identity.outbox where tenant_id = $1", self.tenant.tenant_id
        )
        return [AuditRecorded.FromString(row["data"]).outcome for row in rows]


async def world(installation: Installation, change: User | None) -> World:
    made = World(installation, await installation.provisioned_tenant(slug="acme"), change)
    async with made.tenancy.transaction(made.tenant.context, write=True) as tx:
        await made.users.insert(tx, USER)
    return made


@pytest.mark.parametrize(
    "change", [replace(USER, disabled=True), replace(USER, password_hash="another hash"), None]
)
async def test_is_not_logged_in(installation: Installation, change: User | None) -> None:
    made = await world(installation, change)
    with pytest.raises(Unauthenticated, match="CREDENTIALS_WRONG"):
        await made.log_in()
    assert await made.outcomes() == ["USER_CHANGED_MEANWHILE"]


async def test_does_not_get_another_password(installation: Installation) -> None:
    made = await world(installation, replace(USER, password_hash="another hash"))
    with pytest.raises(PermissionDenied, match="OLD_PASSWORD_WRONG"):
        await made.set_password()
    assert await made.outcomes() == ["USER_CHANGED_MEANWHILE"]
    async with made.tenancy.transaction(made.tenant.context, write=False) as tx:
        user = await made.users.get(tx, ADA)
    assert user is not None
    assert user.password_hash == "another hash"
