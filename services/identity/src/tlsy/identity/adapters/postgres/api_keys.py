"""The table `api_keys`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.identity.domain.api_keys import ApiKey
from tlsy.identity.domain.ids import KeyId

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from asyncpg import Record

    from tlsy.tenancy.unit_of_work import UnitOfWork


class PostgresApiKeys:
    """Keys of the tenant that the transaction has entered."""

    def __init__(self, statements: Mapping[str, str]) -> None:
        self._sql = statements

    async def insert(self, tx: UnitOfWork, key: ApiKey) -> None:
        """A key with an id of its own."""
        await tx.execute(
            self._sql["insert_api_key"],
            tx.tenant_id,
            key.id,
            key.display_name,
            key.role,
            key.secret_hash,
            key.prefix,
            key.create_time,
            key.expire_time,
        )

    async def lock(self, tx: UnitOfWork, key_id: KeyId) -> ApiKey | None:
        """The key, which nobody else changes or exchanges before this transaction ends."""
        row = await tx.fetchrow(self._sql["lock_api_key"], tx.tenant_id, key_id)
        return None if row is None else _key(row)

    async def page(self, tx: UnitOfWork, after: UUID, limit: int) -> list[ApiKey]:
        """At most `limit` keys, revoked ones too, in the order of their creation."""
        return [_key(row) for row in await tx.fetch(self._sql["list_api_keys"], tx.tenant_id, after, limit)]

    async def revoke(self, tx: UnitOfWork, key_id: KeyId, now: datetime) -> None:
        """For good."""
        await tx.execute(self._sql["revoke_api_key"], tx.tenant_id, key_id, now)

    async def record_issue(self, tx: UnitOfWork, key_id: KeyId, now: datetime, *, news: bool) -> None:
        """When its last token was issued, by the latest clock that issued one; a use only if that is news."""
        await tx.execute(self._sql["record_key_issue"], tx.tenant_id, key_id, now, now if news else None)

    async def count_usable(self, tx: UnitOfWork, now: datetime) -> int:
        """Keys neither revoked nor expired: what the limit of keys counts."""
        return int(await tx.fetchval(self._sql["count_api_keys"], tx.tenant_id, now))


def _key(row: Record) -> ApiKey:
    return ApiKey(
        id=KeyId(row["key_id"]),
        display_name=row["display_name"],
        role=row["role"],
        secret_hash=row["secret_hash"],
        prefix=row["prefix"],
        create_time=row["create_time"],
        expire_time=row["expire_time"],
        revoke_time=row["revoke_time"],
        last_used_time=row["last_used_time"],
        last_issued_time=row["last_issued_time"],
    )
