from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tlsy.contracts.audit_log.events.v1.events_pb2 import AuditRecorded
from tlsy.identity.adapters.postgres import read_statements
from tlsy.identity.adapters.postgres.api_keys import PostgresApiKeys
from tlsy.identity.adapters.postgres.control import PostgresRevocationIndex
from tlsy.identity.adapters.postgres.directories import PostgresDirectories
from tlsy.identity.adapters.postgres.role_bindings import PostgresRoleBindings
from tlsy.identity.adapters.postgres.users import PostgresUsers
from tlsy.identity.adapters.sealing import LookupHash, Sealer
from tlsy.identity.domain.api_keys import parse
from tlsy.identity.handlers.bootstrap import Bootstrap, FirstAdministrator
from tlsy.identity.handlers.effects import Effects
from tlsy.identity.handlers.indexing import IndexRevocations
from tlsy.rpc.audit import AuditTrail
from tlsy.runtime.clock import SystemClock
from tlsy.runtime.ids import PLATFORM_TENANT_ID, Uuid7

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsy.testkit.installation import Installation

KEY = os.urandom(32)


@dataclass
class Disk:
    """What one replica wrote; passwords in clear, a moment after they were asked for."""

    prepared: list[str] = field(default_factory=list)
    published: int = 0
    broken: bool = False

    def prepare(self, secret: str) -> None:
        if self.broken:
            raise OSError("no space left on device")
        self.prepared.append(secret)

    def publish(self) -> None:
        self.published += 1

    @contextmanager
    def place(self, slug: str) -> Iterator[Disk]:
        yield self

    async def hash(self, password: str) -> str:
        await asyncio.sleep(0)
        return password

    async def verify(self, stored: str | None, password: str) -> bool:
        return stored == password

    async def pretend(self) -> None:
        """Nothing here takes time."""

    def outdated(self, stored: str) -> bool:
        return stored == ""


def replica(installation: Installation, disk: Disk) -> Bootstrap:
    statements, clock = read_statements(), SystemClock()
    ids = Uuid7(clock, os.urandom)
    directories, lookup = PostgresDirectories(statements), LookupHash(KEY)
    return Bootstrap(
        installation.tenancy("identity"),
        users=PostgresUsers(statements, Sealer({"k": KEY}, "k", os.urandom), lookup),
        keys=PostgresApiKeys(statements),
        bindings=PostgresRoleBindings(statements),
        directories=directories,
        passwords=disk,
        effects=Effects(
            directories,
            AuditTrail("identity", clock, ids),
            IndexRevocations(installation.tenancy("identity"), PostgresRevocationIndex(statements)),
            keyed=lookup,
            clock=clock,
            ids=ids,
            longest_token=timedelta(hours=1),
        ),
        random=os.urandom,
        first=FirstAdministrator("root@platform.example", "a long enough passphrase", disk),
    )


async def made(installation: Installation) -> tuple[int, int, int]:
    tenant = installation.catalog.tenant(PLATFORM_TENANT_ID)
    async with installation.tenancy("identity").transaction(tenant.context, write=False) as tx:
        counts = [
            await tx.fetchval(f"select count(*) from {t}") for t in ("users", "api_keys", "role_bindings")
        ]
    return counts[0], counts[1], counts[2]


async def records(installation: Installation) -> list[AuditRecorded]:
    tenant = installation.catalog.tenant(PLATFORM_TENANT_ID)
    everything = await installation.connect(None, tenant.placement)
    rows = await everything.fetch(
        "select data from identity.outbox where type = 'tlsy.identity.audit.recorded.v1'"
    )
    return [AuditRecorded.FromString(row["data"]) for row in rows]


async def test_by_two_replicas_that_start_at_the_same_moment(installation: Installation) -> None:
    await installation.platform_tenant()
    disks = [Disk(), Disk()]
    replicas = [replica(installation, disk) for disk in disks]
    await asyncio.gather(*(each.run() for each in replicas * 3))
    assert await made(installation) == (1, 1, 2)
    told = [(record.method, record.principal) for record in await records(installation)]
    assert told == [("services/identity/bootstrap", "services/identity")] * 2
    prepared = [secret for disk in disks for secret in disk.prepared]
    assert len(prepared) == 1
    assert parse(prepared[0]) is not None


async def test_by_nobody_who_cannot_leave_the_key_and_later_by_who_can(installation: Installation) -> None:
    await installation.platform_tenant()
    disk = Disk(broken=True)
    with pytest.raises(OSError, match="no space"):
        await replica(installation, disk).run()
    assert await made(installation) == (0, 0, 0)
    disk.broken = False
    await replica(installation, disk).run()
    assert await made(installation) == (1, 1, 2)


async def test_a_key_prepared_before_a_crash_is_published_at_the_next_start(
    installation: Installation,
) -> None:
    await installation.platform_tenant()
    disk = Disk()
    await replica(installation, disk).run()
    restarted = Disk()
    await replica(installation, restarted).run()
    assert (restarted.prepared, restarted.published) == ([], 1)
