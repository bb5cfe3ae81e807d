"""The table `users`. What is personal in it is sealed here and opened here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.identity.domain.emails import normalise
from tlsy.identity.domain.ids import UserId
from tlsy.identity.domain.lockout import Attempts
from tlsy.identity.domain.users import User

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from asyncpg import Record

    from tlsy.identity.adapters.sealing import LookupHash, Sealer
    from tlsy.runtime.ids import TenantId
    from tlsy.tenancy.unit_of_work import UnitOfWork


class PostgresUsers:
    """Users of the tenant that the transaction has entered."""

    def __init__(self, statements: Mapping[str, str], sealer: Sealer, lookup: LookupHash) -> None:
        self._sql = statements
        self._sealer = sealer
        self._lookup = lookup

    async def insert(self, tx: UnitOfWork, user: User) -> bool:
        """False: another user of the tenant has this e-mail address."""
        inserted = await tx.fetchval(
            self._sql["insert_user"],
            tx.tenant_id,
            user.id,
            self._find_by(tx.tenant_id, user.email),
            self._sealer.seal(tx.tenant_id, "users", "email", user.email),
            self._sealer.seal(tx.tenant_id, "users", "display_name", user.display_name),
            user.locale,
            user.disabled,
            user.password_hash,
            user.create_time,
            user.version,
        )
        return inserted is not None

    async def get(self, tx: UnitOfWork, user_id: UserId) -> User | None:
        """The user as committed."""
        return self._user(tx.tenant_id, await tx.fetchrow(self._sql["get_user"], tx.tenant_id, user_id))

    async def lock(self, tx: UnitOfWork, user_id: UserId) -> User | None:
        """The user, whom nobody else changes before this transaction ends."""
        return self._user(tx.tenant_id, await tx.fetchrow(self._sql["lock_user"], tx.tenant_id, user_id))

    async def by_email(self, tx: UnitOfWork, email: str) -> User | None:
        """The user as committed, by any spelling of the address."""
        return await self._by_email(tx, "get_user_by_email", email)

    async def lock_by_email(self, tx: UnitOfWork, email: str) -> User | None:
        """As `lock`, by any spelling of the address."""
        return await self._by_email(tx, "lock_user_by_email", email)

    async def page(self, tx: UnitOfWork, after: UUID, limit: int) -> list[User]:
        """At most `limit` users, in the order of their creation."""
        rows = await tx.fetch(self._sql["list_users"], tx.tenant_id, after, limit)
        return [user for row in rows if (user := self._user(tx.tenant_id, row)) is not None]

    async def save(self, tx: UnitOfWork, user: User) -> None:
        """Everything but the e-mail address and the log-in time."""
        await tx.execute(
            self._sql["update_user"],
            tx.tenant_id,
            user.id,
            self._sealer.seal(tx.tenant_id, "users", "display_name", user.display_name),
            user.locale,
            user.disabled,
            user.password_hash,
            user.attempts.failures,
            user.attempts.since,
            user.attempts.locked_until,
            user.attempts.lockouts,
            user.version,
        )

    async def save_attempts(self, tx: UnitOfWork, user_id: UserId, attempts: Attempts) -> None:
        """Only the count of wrong passwords; the version stays."""
        await tx.execute(
            self._sql["update_attempts"],
            tx.tenant_id,
            user_id,
            attempts.failures,
            attempts.since,
            attempts.locked_until,
            attempts.lockouts,
        )

    async def record_log_in(
        self, tx: UnitOfWork, user_id: UserId, now: datetime, rehashed: str | None
    ) -> None:
        """See `Users.record_log_in`."""
        await tx.execute(self._sql["record_log_in"], tx.tenant_id, user_id, now, rehashed)

    async def delete(self, tx: UnitOfWork, user_id: UserId) -> None:
        """The row and the personal data in it."""
        await tx.execute(self._sql["delete_user"], tx.tenant_id, user_id)

    async def count(self, tx: UnitOfWork) -> int:
        """All users, disabled ones too."""
        return int(await tx.fetchval(self._sql["count_users"], tx.tenant_id))

    async def _by_email(self, tx: UnitOfWork, statement: str, email: str) -> User | None:
        found = self._find_by(tx.tenant_id, email)
        return self._user(tx.tenant_id, await tx.fetchrow(self._sql[statement], tx.tenant_id, found))

    def _find_by(self, tenant_id: TenantId, email: str) -> bytes:
        return self._lookup(tenant_id, normalise(email) or email)

    def _user(self, tenant_id: TenantId, row: Record | None) -> User | None:
        if row is None:
            return None
        return User(
            id=UserId(row["user_id"]),
            email=self._sealer.open(tenant_id, "users", "email", row["email_sealed"]),
            display_name=self._sealer.open(tenant_id, "users", "display_name", row["display_name_sealed"]),
            locale=row["locale"],
            disabled=row["disabled"],
            password_hash=row["password_hash"],
            attempts=Attempts(
                failures=row["failures"],
                since=row["failures_since"],
                locked_until=row["locked_until"],
                lockouts=row["lockouts"],
            ),
            create_time=row["create_time"],
            last_log_in_time=row["last_log_in_time"],
            version=row["version"],
        )
