"""The tables `directory` and `revocations`: what is kept once per tenant, and whose tokens ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.identity.domain.bindings import DirectoryFacts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from asyncpg import Record

    from tlsy.identity.domain.revocations import Revocation
    from tlsy.tenancy.unit_of_work import UnitOfWork


class PostgresDirectories:
    """The one row of the tenant that the transaction has entered, and its revocations."""

    def __init__(self, statements: Mapping[str, str]) -> None:
        self._sql = statements

    async def lock(self, tx: UnitOfWork) -> DirectoryFacts:
        """Until the transaction ends nobody else counts or removes principals of the tenant."""
        await tx.execute(self._sql["create_directory"], tx.tenant_id)
        return _facts(await tx.fetchrow(self._sql["lock_directory"], tx.tenant_id))

    async def read(self, tx: UnitOfWork) -> DirectoryFacts:
        """The facts as committed."""
        return _facts(await tx.fetchrow(self._sql["read_directory"], tx.tenant_id))

    async def mark_first_admin_log_in(self, tx: UnitOfWork, now: datetime) -> None:
        """Onboarding is over, for good; only the first call writes."""
        await tx.execute(self._sql["mark_first_admin_log_in"], tx.tenant_id, now)

    async def mark_bootstrapped(self, tx: UnitOfWork, now: datetime) -> None:
        """The first administrator is made, for good. Under `lock`."""
        await tx.execute(self._sql["mark_bootstrapped"], tx.tenant_id, now)

    async def put_revocation(self, tx: UnitOfWork, revocation: Revocation) -> None:
        """Keep the later one per principal, and drop the tenant's that have expired."""
        await tx.execute(
            self._sql["put_revocation"],
            revocation.tenant_id,
            revocation.principal,
            revocation.revoke_time,
            revocation.expire_time,
            revocation.cause.value,
        )
        await tx.execute(
            self._sql["delete_expired_revocations"], revocation.tenant_id, revocation.revoke_time
        )


def _facts(row: Record | None) -> DirectoryFacts:
    if row is None:
        return DirectoryFacts(onboarded=False, bootstrapped=False)
    return DirectoryFacts(
        onboarded=row["first_admin_log_in_time"] is not None, bootstrapped=row["bootstrap_time"] is not None
    )
