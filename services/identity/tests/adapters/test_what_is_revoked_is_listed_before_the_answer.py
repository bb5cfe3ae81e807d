from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
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
from tlsy.identity.adapters.sealing import LookupHash, Sealer
from tlsy.identity.domain.api_keys import ApiKey, hash_secret, render
from tlsy.identity.domain.bindings import RoleBinding
from tlsy.identity.domain.ids import BindingId, KeyId, PrincipalKind, PrincipalRef
from tlsy.identity.domain.signing import Ring, Slot
from tlsy.identity.handlers.budgets import Budgets, ExchangeLimits
from tlsy.identity.handlers.delete_role_binding import DeleteRoleBinding
from tlsy.identity.handlers.effects import Effects
from tlsy.identity.handlers.exchange_api_key import ExchangeApiKey
from tlsy.identity.handlers.indexing import IndexRevocations
from tlsy.identity.handlers.issuing import Issuer
from tlsy.identity.handlers.list_revocations import ListRevocations
from tlsy.identity.handlers.revoke_api_key import RevokeApiKey
from tlsy.rpc.audit import AuditTrail
from tlsy.rpc.call import Call
from tlsy.rpc.permissions import ROLES
from tlsy.rpc.revocations import DenyList
from tlsy.runtime.ids import PrincipalName, TenantId, Uuid7
from tlsy.tenancy.errors import PlacementUnavailable
from tlsy.testkit.clock import FakeClock

if TYPE_CHECKING:
    from tlsy.identity.domain.revocations import IndexedRevocation
    from tlsy.tenancy.catalog import TenantEntry
    from tlsy.tenancy.context import Placement
    from tlsy.tenancy.unit_of_work import UnitOfWork
    from tlsy.testkit.installation import Installation

SECRET, KEY, BINDING = bytes(32), KeyId(uuid4()), BindingId(uuid4())
NOW = datetime.now(UTC)
AHEAD = timedelta(seconds=5)


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

    async def issued_at(self) -> float:
        """Exchange the key, and say when its token counts as issued."""
        exchange = ExchangeApiKey(
            self.tenancy,
            keys=self.keys,
            bindings=self.bindings,
            directories=self.directories,
            limits=ExchangeLimits(Budgets(self.clock, size=9, per_s=1), Budgets(self.clock, size=9, per_s=1)),
            denials=cast("Any", None),
            effects=self.effects,
            issuer=Issuer(self.ring, self.clock, self.ids),
            lifetime=timedelta(minutes=10),
        )
        done = await exchange.run(self.call("ExchangeApiKey"), render(self.tenant.tenant_id, KEY, SECRET), ())
        payload = done.token.text.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(payload + "=="))["iat"])

    async def end(self, how: str) -> None:
        parts: dict[str, Any] = {
            "keys": self.keys,
            "bindings": self.bindings,
            "directories": self.directories,
            "effects": self.effects,
        }
        if how == "key":
            await RevokeApiKey(self.tenancy, **parts).run(self.call("RevokeApiKey"), KEY)
        else:
            delete = DeleteRoleBinding(self.tenancy, users=cast("Any", None), **parts)
            await delete.run(self.call("DeleteRoleBinding"), BINDING)

    def call(self, method: str) -> Call:
        everything = frozenset().union(*ROLES.values())
        return Call(
            method=method,
            tenant=self.tenant,
            claims=None,
            permissions=everything,
            request_id=None,
            request_hash=b"",
            correlation_id="",
            traceparent="",
            trace_id="",
            deadline=0.0,
            peer="",
        )

    async def refused_by_who_starts_now(self, issued_at: float) -> bool:
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
        name = PrincipalRef(PrincipalKind.API_KEY, KEY).name(self.tenant.slug)
        return deny.refuses(self.tenant.tenant_id, PrincipalName(name), issued_at)


async def replicas(installation: Installation, index: Any = None) -> tuple[Replica, Replica]:
    """The second one's clock is ahead."""
    tenant = await installation.provisioned_tenant()
    index = index or PostgresRevocationIndex(read_statements())
    one = Replica(installation, tenant, FakeClock(NOW), index)
    await one.make_key()
    return one, Replica(installation, tenant, FakeClock(NOW + AHEAD), index)


@pytest.mark.parametrize("how", ["key", "role"])
async def test_although_no_worker_has_seen_its_event_and_another_clock_issued_the_token(
    installation: Installation, how: str
) -> None:
    one, ahead = await replicas(installation)
    issued_at = await ahead.issued_at()
    assert not await one.refused_by_who_starts_now(issued_at)
    await one.end(how)
    assert await one.refused_by_who_starts_now(issued_at)
    assert not await one.refused_by_who_starts_now(issued_at + 0.001)


async def test_or_is_left_to_its_event_while_the_control_database_is_away(installation: Installation) -> None:
    one, _ = await replicas(installation, Away(installation.control))
    await one.end("key")
    everything = await installation.connect(None, one.tenant.placement)
    told = "select count(*) from identity.outbox where tenant_id = $1 and type = $2"
    assert await everything.fetchval(told, one.tenant.tenant_id, PRINCIPAL_REVOKED) == 1
