"""The control database's schema `identity`: signing keys and the index of revocations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.identity.domain.revocations import IndexedRevocation
from tlsy.identity.domain.signing import Ring, SigningKey, Slot

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from asyncpg import Record

    from tlsy.tenancy.unit_of_work import UnitOfWork


class PostgresSigningKeys:
    """The installation's keys; their private parts are sealed, and stay so here."""

    def __init__(self, statements: Mapping[str, str]) -> None:
        self._sql = statements

    async def lock(self, tx: UnitOfWork) -> Ring:
        """All keys; until the transaction ends nobody else changes the ring."""
        await tx.fetchval(self._sql["lock_key_ring"])
        return await self.read(tx)

    async def read(self, tx: UnitOfWork) -> Ring:
        """All keys, retired ones too, oldest first."""
        rows = await tx.fetch(self._sql["read_signing_keys"])
        keys = tuple(_signing_key(row) for row in rows if row["kid"] is not None)
        return Ring(keys, rows[0]["version"])

    async def next_version(self, tx: UnitOfWork) -> int:
        """Of the ring as this transaction leaves it. Under `lock`."""
        return int(await tx.fetchval(self._sql["count_ring_change"]))

    async def insert(self, tx: UnitOfWork, key: SigningKey) -> None:
        """A new key. Under `lock`."""
        await tx.execute(
            self._sql["insert_signing_key"],
            key.kid,
            key.slot.value,
            key.public_jwk,
            key.sealed_private,
            key.announced_time,
            key.signing_since,
            key.verifies_until,
        )

    async def save(self, tx: UnitOfWork, key: SigningKey) -> None:
        """Another slot and its times. Under `lock`."""
        await tx.execute(
            self._sql["update_signing_key"],
            key.kid,
            key.slot.value,
            key.sealed_private,
            key.signing_since,
            key.verifies_until,
        )

    async def delete(self, tx: UnitOfWork, kid: str) -> None:
        """Forget a key. Under `lock`."""
        await tx.execute(self._sql["delete_signing_key"], kid)


class PostgresRevocationIndex:
    """Revocations of all tenants."""

    def __init__(self, statements: Mapping[str, str]) -> None:
        self._sql = statements

    async def put(self, tx: UnitOfWork, revocation: IndexedRevocation) -> None:
        """Keep the later one per principal: safe to repeat, and in any order."""
        await tx.execute(
            self._sql["put_indexed_revocation"],
            revocation.tenant_id,
            revocation.principal,
            revocation.revoke_time,
            revocation.expire_time,
        )

    async def page(
        self, tx: UnitOfWork, after: tuple[UUID, str], now: datetime, limit: int
    ) -> list[IndexedRevocation]:
        """At most `limit` that a valid token could still fall under, by tenant and principal."""
        rows = await tx.fetch(self._sql["list_indexed_revocations"], *after, now, limit)
        return [
            IndexedRevocation(
                tenant_id=row["tenant_id"],
                principal=row["principal"],
                revoke_time=row["revoke_time"],
                expire_time=row["expire_time"],
            )
            for row in rows
        ]

    async def delete_expired(self, tx: UnitOfWork, now: datetime) -> None:
        """Those that no valid token can fall under."""
        await tx.execute(self._sql["delete_expired_index"], now)


def _signing_key(row: Record) -> SigningKey:
    return SigningKey(
        kid=row["kid"],
        slot=Slot(row["slot"]),
        public_jwk=row["public_jwk"],
        sealed_private=row["private_sealed"],
        announced_time=row["announced_time"],
        signing_since=row["signing_since"],
        verifies_until=row["verifies_until"],
    )
