from __future__ import annotations

import asyncio
import base64
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import pytest

from tlsy.contracts.events import PRINCIPAL_REVOKED
from tlsy.identity.adapters.key_ring import KeyRing
from tlsy.identity.adapters.postgres import read_statements
from tlsy.identity.adapters.postgres.api_keys import PostgresApiKeys
from tlsy.identity.adapters.postgres.control import PostgresRevocationIndex
from tlsy.identity.adapters.postgres.directories import PostgresDirectories
from tlsy.identity.adapters.postgres.role_bindings import PostgresRoleBindings
from tlsy.identity.adapters.postgres.users import PostgresUsers
from tlsy.identity.adapters.sealing import LookupHash, Sealer
from tlsy.identity.domain.api_keys import ApiKey, hash_secret, render
from tlsy.identity.domain.bindings import RoleBinding
from tlsy.identity.domain.ids import BindingId, KeyId, PrincipalKind, PrincipalRef, UserId
from tlsy.identity.domain.lockout import Attempts
from tlsy.identity.domain.signing import Ring, Slot
from tlsy.identity.domain.users import User, UserChange
from tlsy.identity.handlers.budgets import Budgets, ExchangeLimits
from tlsy.identity.handlers.delete_role_binding import DeleteRoleBinding
from tlsy.identity.handlers.delete_user import DeleteUser
from tlsy.identity.handlers.effects import Effects
from tlsy.identity.handlers.exchange_api_key import ExchangeApiKey
from tlsy.identity.handlers.indexing import IndexRevocations
from tlsy.identity.handlers.issuing import Issuer
from tlsy.identity.handlers.list_revocations import ListRevocations
from tlsy.identity.handlers.revoke_api_key import RevokeApiKey
from tlsy.identity.handlers.set_password import SetPassword, SetPasswordCommand
from tlsy.identity.handlers.update_user import UpdateUser, UpdateUserCommand
from tlsy.rpc.audit import AuditTrail
from tlsy.rpc.errors import Unauthenticated
from tlsy.rpc.permissions import ROLES
from tlsy.rpc.revocations import DenyList
from tlsy.runtime.ids import PrincipalName, TenantId, Uuid7
from tlsy.tenancy.errors import PlacementUnavailable
from tlsy.testkit.calls import public_call
from tlsy.testkit.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsy.identity.domain.revocations import IndexedRevocation
    from tlsy.rpc.call import Call
    from tlsy.tenancy.catalog import TenantEntry
    from tlsy.tenancy.context import Placement
    from tlsy.tenancy.unit_of_work import UnitOfWork
    from tlsy.testkit.installation import Installation

SECRET, KEY, BINDING = bytes(32), KeyId(uuid4()), BindingId(uuid4())
ADA = UserId(uuid4())
NOW = datetime.now(UTC)
AHEAD = timedelta(seconds=5)


class NoDenials:
    """Denials are not looked at here."""

    def denied(self, call: object) -> None:
        """See the class."""


class Passwords:
    """In clear."""

    @contextmanager
    def place(self, slug: str) -> Iterator[Passwords]:
        yield self

    async def hash(self, password: str) -> str:
        return password


def person(user_id: UserId) -> User:
    return User(
        id=user_id,
        email=f"{user_id}@x.org",
        display_name="",
        locale="",
        disabled=False,
        password_hash="",
        attempts=Attempts(),
        create_time=NOW,
        last_log_in_time=None,
        version=1,
    )


@dataclass
class Away:
    """A control database that cannot be written to."""

    control: Placement

    async def put(self, tx: UnitOfWork, revocation: IndexedRevocation) -> None:
        raise PlacementUnavailable(self.control, "away")


@dataclass
class Replica:
    """Of identity, with a clock of its own and no worker anywhere."""

    installation: Installation
    tenant: TenantEntry
    clock: FakeClock
    index: Any

    def __post_init__(self) -> None:
        self.tenancy = self.installation.tenancy("identity")
        sql, ids = read_statements(), Uuid7(self.clock, os.urandom)
        self.keys, self.bindings = PostgresApiKeys(sql), PostgresRoleBindings(sql)
        self.directories = PostgresDirectories(sql)
        self.effects = Effects(
            self.directories,
            AuditTrail("identity", self.clock, ids),
            IndexRevocations(self.tenancy, self.index),
            keyed=LookupHash(bytes(32)),
            clock=self.clock,
            ids=ids,
            longest_token=timedelta(hours=1),
        )
        self.users = PostgresUsers(sql, Sealer({"k": bytes(32)}, "k", os.urandom), LookupHash(bytes(32)))
        self.ring = KeyRing(Sealer({"k": bytes(32)}, "k", os.urandom))
        self.ring.adopt(Ring((self.ring.make(Slot.SIGNING, self.clock.now()),), 1))
        self.ids = ids

    async def make_key(self) -> None:
        ref = PrincipalRef(PrincipalKind.API_KEY, KEY)
        key = ApiKey(
            id=KEY,
            display_name="",
            role="agent",
            secret_hash=hash_secret(SECRET),
            prefix="0" * 8,
            create_time=NOW,
            expire_time=None,
            revoke_time=None,
            last_used_time=None,
        )
        bound = RoleBinding(id=BINDING, principal=ref, role="agent", module="", create_time=NOW)
        async with self.tenancy.transaction(self.tenant.context, write=True) as tx:
            await self.keys.insert(tx, key)
            await self.bindings.insert(tx, bound)

    async def make_user(self) -> None:
        """Who has logged in where the clock is ahead; another administrator stays."""
        async with self.tenancy.transaction(self.tenant.context, write=True) as tx:
            for user_id in (ADA, UserId(uuid4())):
                await self.users.insert(tx, person(user_id))
                ref = PrincipalRef(PrincipalKind.USER, user_id)
                binding = BINDING if user_id == ADA else BindingId(uuid4())
                role = RoleBinding(id=binding, principal=ref, role="client-admin", module="", create_time=NOW)
                await self.bindings.insert(tx, role)
            await self.users.record_log_in(tx, ADA, NOW + AHEAD, None)

    async def issued_at(self) -> float:
        """Exchange the key, and say when its token counts as issued."""
        exchange = ExchangeApiKey(
            self.tenancy,
            keys=self.keys,
            bindings=self.bindings,
            directories=self.directories,
            limits=ExchangeLimits(Budgets(self.clock, size=9, per_s=1), Budgets(self.clock, size=9, per_s=1)),
            denials=cast("Any", NoDenials()),
            effects=self.effects,
            issuer=Issuer(self.ring, self.clock, self.ids),
            lifetime=timedelta(minutes=10),
        )
        done = await exchange.run(self.call("ExchangeApiKey"), render(self.tenant.tenant_id, KEY, SECRET), ())
        payload = done.token.text.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(payload + "=="))["iat"])

    async def end(self, how: str) -> None:
        call, parts = self.call(how), (self.bindings, self.directories, self.effects)
        named: dict[str, Any] = {"bindings": parts[0], "directories": parts[1], "effects": parts[2]}
        if how == "RevokeApiKey":
            await RevokeApiKey(self.tenancy, self.keys, *parts).run(call, KEY)
        elif how == "DeleteRoleBinding":
            delete = DeleteRoleBinding(self.tenancy, users=self.users, keys=self.keys, **named)
            await delete.run(call, BINDING)
        elif how == "DeleteUser":
            await DeleteUser(self.tenancy, self.users, *parts).run(call, ADA, "")
        elif how == "UpdateUser":
            change = UserChange(display_name="", disabled=True, locale="")
            command = UpdateUserCommand(user_id=ADA, change=change, mask=["disabled"], etag="")
            await UpdateUser(self.tenancy, self.users, *parts).run(call, command)
        else:
            other: Any = Passwords()
            setting = SetPassword(self.tenancy, self.users, **named, directory=other, passwords=other)
            await setting.run(call, SetPasswordCommand(ADA, "a brand new passphrase", ""))

    def call(self, method: str) -> Call:
        everything = frozenset().union(*ROLES.values())
        return replace(public_call(method), tenant=self.tenant, permissions=everything)

    async def refused_by_who_starts_now(self, ref: PrincipalRef, issued_at: float) -> bool:
        deny = DenyList(self.clock)
        index = PostgresRevocationIndex(read_statements())
        listed, _ = await ListRevocations(self.tenancy, index, self.clock).run((UUID(int=0), ""), 10)
        for each in listed:
            deny.revoke(
                TenantId(each.tenant_id),
                PrincipalName(each.principal),
                revoked_at=each.revoke_time.timestamp(),
                expires_at=each.expire_time.timestamp(),
            )
        name = PrincipalName(ref.name(self.tenant.slug))
        return deny.refuses(self.tenant.tenant_id, name, issued_at)


async def replicas(installation: Installation, index: Any = None) -> tuple[Replica, Replica]:
    """The second one's clock is ahead."""
    tenant = await installation.provisioned_tenant()
    index = index or PostgresRevocationIndex(read_statements())
    one = Replica(installation, tenant, FakeClock(NOW), index)
    await one.make_key()
    return one, Replica(installation, tenant, FakeClock(NOW + AHEAD), index)


@pytest.mark.parametrize("how", ["RevokeApiKey", "DeleteRoleBinding"])
async def test_although_no_worker_has_seen_its_event_and_another_clock_issued_the_token(
    installation: Installation, how: str
) -> None:
    one, ahead = await replicas(installation)
    issued_at, key = await ahead.issued_at(), PrincipalRef(PrincipalKind.API_KEY, KEY)
    assert not await one.refused_by_who_starts_now(key, issued_at)
    await one.end(how)
    assert await one.refused_by_who_starts_now(key, issued_at)
    assert not await one.refused_by_who_starts_now(key, issued_at + 0.001)


@pytest.mark.parametrize("how", ["UpdateUser", "DeleteUser", "SetPassword", "DeleteRoleBinding"])
async def test_nor_does_a_persons_of_a_log_in_where_the_clock_is_ahead(
    installation: Installation, how: str
) -> None:
    tenant = await installation.provisioned_tenant()
    one = Replica(installation, tenant, FakeClock(NOW), PostgresRevocationIndex(read_statements()))
    await one.make_user()
    await one.end(how)
    logged_in, ada = (NOW + AHEAD).timestamp(), PrincipalRef(PrincipalKind.USER, ADA)
    assert await one.refused_by_who_starts_now(ada, logged_in)
    assert not await one.refused_by_who_starts_now(ada, logged_in + 0.001)


async def test_nor_after_a_later_log_in_where_the_clock_is_right(installation: Installation) -> None:
    tenant = await installation.provisioned_tenant()
    one = Replica(installation, tenant, FakeClock(NOW), PostgresRevocationIndex(read_statements()))
    await one.make_user()
    async with one.tenancy.transaction(tenant.context, write=True) as tx:
        await one.users.record_log_in(tx, ADA, NOW, None)
    await one.end("UpdateUser")
    ada = PrincipalRef(PrincipalKind.USER, ADA)
    assert await one.refused_by_who_starts_now(ada, (NOW + AHEAD).timestamp())


async def test_a_key_that_is_being_revoked_is_exchanged_no_more(installation: Installation) -> None:
    one, _ = await replicas(installation)
    everything = await installation.connect(None, one.tenant.placement)
    waiting = "select count(*) from pg_locks where not granted"
    async with one.tenancy.transaction(one.tenant.context, write=True) as tx:
        await one.keys.lock(tx, KEY)
        exchange = asyncio.create_task(one.issued_at())
        async with asyncio.timeout(60):
            while not (exchange.done() or await everything.fetchval(waiting)):
                await asyncio.sleep(0.01)
        await one.keys.revoke(tx, KEY, NOW)
    with pytest.raises(Unauthenticated, match="API_KEY_REFUSED"):
        await exchange


async def test_or_is_left_to_its_event_while_the_control_database_is_away(installation: Installation) -> None:
    one, _ = await replicas(installation, Away(installation.control))
    await one.end("RevokeApiKey")
    everything = await installation.connect(None, one.tenant.placement)
    told = "select count(*) from identity.outbox where tenant_id = $1 and type = $2"
    assert await everything.fetchval(told, one.tenant.tenant_id, PRINCIPAL_REVOKED) == 1
