"""A new user."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from tlsy.identity.domain.emails import email_problems, stripped
from tlsy.identity.domain.ids import PrincipalKind, PrincipalRef, UserId
from tlsy.identity.domain.lockout import Attempts
from tlsy.identity.domain.passwords import password_problems
from tlsy.identity.domain.users import User, profile_problems
from tlsy.identity.handlers.guards import check_onboarding, refuse_problems
from tlsy.identity.ports import PasswordsBusy
from tlsy.rpc.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted

if TYPE_CHECKING:
    from tlsy.identity.handlers.effects import Effects
    from tlsy.identity.ports import Directories, Passwords, Users
    from tlsy.rpc.call import Call
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork

_LIMIT = "users"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateUserCommand:
    """What is known of the person. `password` may be empty: then none is set."""

    email: str = field(repr=False)
    display_name: str = field(repr=False)
    locale: str
    disabled: bool
    password: str = field(repr=False)


class CreateUser:
    """A user without any role."""

    def __init__(
        self,
        tenancy: Tenancy,
        users: Users,
        directories: Directories,
        passwords: Passwords,
        effects: Effects,
    ) -> None:
        self._tenancy = tenancy
        self._users = users
        self._directories = directories
        self._passwords = passwords
        self._effects = effects

    async def run(self, call: Call, command: CreateUserCommand) -> User:
        """The user as stored.

        Raises:
            InvalidArgument: with everything that is wrong.
            AlreadyExists: reason EMAIL_TAKEN.
            FailedPrecondition: reason USER_LIMIT.
            ResourceExhausted: reason PASSWORDS_BUSY.
            PermissionDenied: reason ONBOARDING_CLOSED.
        """
        problems = email_problems("user.email", command.email)
        problems += profile_problems("user.", command.display_name, command.locale)
        if command.password:
            problems += password_problems("password", command.password, command.email)
        refuse_problems(problems)
        tenant = call.required_tenant()
        try:
            stored = await self._hash(tenant.slug, command.password) if command.password else None
        except PasswordsBusy:
            raise ResourceExhausted(
                "PASSWORDS_BUSY", "Too many at once; try again.", retry_after_s=1.0
            ) from None
        user = User(
            id=UserId(self._effects.new_id()),
            email=stripped(command.email),
            display_name=command.display_name,
            locale=command.locale,
            disabled=command.disabled,
            password_hash=stored,
            attempts=Attempts(),
            create_time=self._effects.now(),
            last_log_in_time=None,
            version=1,
        )
        return await self._tenancy.run(tenant.tenant_id, lambda tx: self._store(tx, call, user), write=True)

    async def _hash(self, slug: str, password: str) -> str:
        with self._passwords.place(slug) as place:
            return await place.hash(password)

    async def _store(self, tx: UnitOfWork, call: Call, user: User) -> User:
        tenant = call.required_tenant()
        stored = await self._effects.replayed(tx, call)
        if stored is not None:
            return await self._again(tx, UserId(UUID(bytes=stored)))
        check_onboarding(call, await self._directories.lock(tx))
        limit = tenant.entitlements.get(_LIMIT)
        if limit is not None and await self._users.count(tx) >= limit:
            raise FailedPrecondition(
                "USER_LIMIT", f"The tenant may have {limit} users.", metadata={"limit": str(limit)}
            )
        if not await self._users.insert(tx, user):
            raise AlreadyExists("EMAIL_TAKEN", "A user of the tenant has this e-mail address.")
        name = PrincipalRef(PrincipalKind.USER, user.id).name(tenant.slug)
        details: dict[str, object] = {"disabled": user.disabled, "password": user.password_hash is not None}
        self._effects.audit(tx, call, resource=name, details=details)
        self._effects.remember(tx, call, user.id.bytes)
        return user

    async def _again(self, tx: UnitOfWork, user_id: UserId) -> User:
        """As the user is now: the answer held personal data, and was not kept."""
        user = await self._users.get(tx, user_id)
        if user is None:
            raise NotFound("USER_NOT_FOUND", "The user that this request created was deleted since.")
        return user
