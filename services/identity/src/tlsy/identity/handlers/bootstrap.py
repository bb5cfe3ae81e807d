"""The platform's first administrator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tlsy.identity.domain.api_keys import SECRET_BYTES, ApiKey, hash_secret, prefix_of, render
from tlsy.identity.domain.bindings import INTERNAL_ADMIN, RoleBinding
from tlsy.identity.domain.emails import stripped
from tlsy.identity.domain.ids import BindingId, KeyId, PrincipalKind, PrincipalRef, UserId
from tlsy.identity.domain.lockout import Attempts
from tlsy.identity.domain.users import User
from tlsy.runtime.ids import PLATFORM_SLUG, PLATFORM_TENANT_ID

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsy.identity.handlers.effects import Effects
    from tlsy.identity.ports import (
        ApiKeys,
        Directories,
        Passwords,
        RoleBindings,
        SecretFile,
        Users,
    )
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


@dataclass(frozen=True, slots=True)
class FirstAdministrator:
    """From the settings. Without an e-mail address no user is made; without a file no key."""

    email: str = field(repr=False)
    password: str = field(repr=False)
    key_file: SecretFile | None


class Bootstrap:
    """Made once in the life of an installation: two replicas take turns at the directory's row.

    The key is prepared on disk before the commit and published after it, at the next start at the latest:
    a crash in between loses no key, and the file that an operator finds holds one that works.
    """

    def __init__(
        self,
        tenancy: Tenancy,
        *,
        users: Users,
        keys: ApiKeys,
        bindings: RoleBindings,
        directories: Directories,
        passwords: Passwords,
        effects: Effects,
        random: Callable[[int], bytes],
        first: FirstAdministrator,
    ) -> None:
        self._tenancy = tenancy
        self._users = users
        self._keys = keys
        self._bindings = bindings
        self._directories = directories
        self._passwords = passwords
        self._effects = effects
        self._random = random
        self._first = first

    async def run(self) -> None:
        """Do it unless it was done.

        Raises:
            UnknownTenant, Unavailable, PlacementUnavailable: the platform tenant is not there yet; try again.
            OSError: the key's file cannot be written.
        """
        if not self._first.email and self._first.key_file is None:
            return
        facts = await self._tenancy.run(PLATFORM_TENANT_ID, self._directories.read, write=False)
        if facts.bootstrapped:
            self._publish()
            return
        with self._passwords.place(PLATFORM_SLUG) as place:
            stored = await place.hash(self._first.password) if self._first.email else None
        await self._tenancy.run(PLATFORM_TENANT_ID, lambda tx: self._make(tx, stored), write=True)
        self._publish()

    def _publish(self) -> None:
        if self._first.key_file is not None:
            self._first.key_file.publish()

    async def _make(self, tx: UnitOfWork, stored: str | None) -> None:
        facts = await self._directories.lock(tx)
        if facts.bootstrapped:
            return
        if self._first.email:
            await self._make_user(tx, stored)
        if self._first.key_file is not None:
            await self._make_key(tx, self._first.key_file)
        await self._directories.mark_bootstrapped(tx, self._effects.now())

    async def _make_user(self, tx: UnitOfWork, stored: str | None) -> None:
        user = User(
            id=UserId(self._effects.new_id()),
            email=stripped(self._first.email),
            display_name="",
            locale="",
            disabled=False,
            password_hash=stored,
            attempts=Attempts(),
            create_time=self._effects.now(),
            last_log_in_time=None,
            version=1,
        )
        if not await self._users.insert(tx, user):
            return
        await self._bind(tx, PrincipalRef(PrincipalKind.USER, user.id))

    async def _make_key(self, tx: UnitOfWork, file: SecretFile) -> None:
        secret = self._random(SECRET_BYTES)
        key = ApiKey(
            id=KeyId(self._effects.new_id()),
            display_name="bootstrap",
            role=INTERNAL_ADMIN,
            secret_hash=hash_secret(secret),
            prefix=prefix_of(secret),
            create_time=self._effects.now(),
            expire_time=None,
            revoke_time=None,
            last_used_time=None,
        )
        await self._keys.insert(tx, key)
        await self._bind(tx, PrincipalRef(PrincipalKind.API_KEY, key.id))
        file.prepare(render(PLATFORM_TENANT_ID, key.id, secret))

    async def _bind(self, tx: UnitOfWork, principal: PrincipalRef) -> None:
        binding = RoleBinding(
            id=BindingId(self._effects.new_id()),
            principal=principal,
            role=INTERNAL_ADMIN,
            module="",
            create_time=self._effects.now(),
        )
        await self._bindings.insert(tx, binding)
        name, details = principal.name(PLATFORM_SLUG), {"role": INTERNAL_ADMIN}
        self._effects.audit_duty(tx, "bootstrap", resource=name, details=details)
