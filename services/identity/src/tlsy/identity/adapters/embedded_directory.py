"""The embedded directory: users and password hashes in the tenant's own tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.identity.domain.lockout import begin_attempt, untried
from tlsy.identity.ports import Authenticated, NotAuthenticated

if TYPE_CHECKING:
    from tlsy.identity.domain.lockout import LockoutPolicy
    from tlsy.identity.domain.users import User
    from tlsy.identity.ports import PasswordPlace, Passwords, Users
    from tlsy.runtime.clock import Clock
    from tlsy.tenancy.catalog import TenantEntry
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


class EmbeddedDirectory:
    """See `Directory`. An attempt is counted, and a lock stored, before the password is checked.

    Only of who has a place to have it checked: being too many at once locks nobody.
    """

    def __init__(
        self, tenancy: Tenancy, users: Users, passwords: Passwords, clock: Clock, policy: LockoutPolicy
    ) -> None:
        self._tenancy = tenancy
        self._users = users
        self._passwords = passwords
        self._clock = clock
        self._policy = policy

    async def authenticate(
        self, tenant: TenantEntry, email: str, password: str
    ) -> Authenticated | NotAuthenticated:
        """See `Directory.authenticate`."""
        with self._passwords.place(tenant.slug) as place:
            return await self._attempt(place, tenant, email, password)

    async def untried(self, tenant: TenantEntry, email: str) -> bool:
        """See `Directory.untried`."""

        async def read(tx: UnitOfWork) -> bool:
            user = await self._users.by_email(tx, email)
            return user is not None and untried(user.attempts, self._clock.now(), self._policy)

        return await self._tenancy.run(tenant.tenant_id, read, write=False)

    async def _attempt(
        self, place: PasswordPlace, tenant: TenantEntry, email: str, password: str
    ) -> Authenticated | NotAuthenticated:
        async def count(tx: UnitOfWork) -> tuple[User | None, bool]:
            user = await self._users.lock_by_email(tx, email)
            if user is None:
                return None, False
            begun = begin_attempt(user.attempts, self._clock.now(), self._policy)
            if begun is None:
                return user, False
            await self._users.save_attempts(tx, user.id, begun)
            return user, True

        user, admitted = await self._tenancy.run(tenant.tenant_id, count, write=True)
        stored = user.password_hash if user is not None and admitted and not user.disabled else None
        right = await place.verify(stored, password)
        if user is None:
            return NotAuthenticated("USER_UNKNOWN", None)
        if not admitted:
            return NotAuthenticated("ACCOUNT_LOCKED", user.id)
        if user.disabled:
            return NotAuthenticated("USER_DISABLED", user.id)
        if user.password_hash is None:
            return NotAuthenticated("NO_PASSWORD", user.id)
        if not right:
            return NotAuthenticated("PASSWORD_WRONG", user.id)
        outdated = self._passwords.outdated(user.password_hash)
        rehashed = await place.hash(password) if outdated else None
        return Authenticated(user.id, user.password_hash, rehashed)
