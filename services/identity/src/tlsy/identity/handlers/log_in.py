"""Password log-in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tlsy.identity.domain.ids import PrincipalKind, PrincipalRef
from tlsy.identity.handlers.guards import administrator_role_of, lock_to_onboard
from tlsy.identity.handlers.issuing import token_roles
from tlsy.identity.ports import Authenticated, NotAuthenticated, PasswordsBusy
from tlsy.rpc.denials import DeniedCalls
from tlsy.rpc.errors import FailedPrecondition, ResourceExhausted, Unauthenticated
from tlsy.runtime.ids import PLATFORM_TENANT_ID, PrincipalName, Slug
from tlsy.tenancy.context import TenantState
from tlsy.tenancy.errors import NotWritable, UnknownTenant

if TYPE_CHECKING:
    from datetime import timedelta

    from tlsy.identity.handlers.budgets import Budgets
    from tlsy.identity.handlers.effects import Effects
    from tlsy.identity.handlers.issuing import IssuedToken, Issuer
    from tlsy.identity.ports import Directories, Directory, Passwords, RoleBindings, Users
    from tlsy.rpc.call import Call
    from tlsy.rpc.denials import DenialSink
    from tlsy.runtime.ids import TenantId
    from tlsy.tenancy.catalog import TenantEntry
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork

ANONYMOUS: Final = PrincipalName("anonymous")


@dataclass(frozen=True, slots=True)
class LogInCommand:
    """What the caller claims."""

    slug: str
    email: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A token of this principal."""

    token: IssuedToken
    principal: str


class LogIn:
    """Two transactions: the directory counts the attempt, then the outcome takes effect.

    The password is checked between them, so that no connection waits for it. Whatever is wrong with the
    credentials, the answer is the same and takes as long; the audit log tells which it was.

    Refused log-ins are limited per tenant, against one password tried on many users, which no lock of a
    single user sees; those of tenants that are not there are limited together. Beyond that the answer is
    still the same, unread; only users without a wrong password lately are let through, to try once. The
    caller's address is not looked at: behind a proxy it is everybody's.
    """

    def __init__(
        self,
        tenancy: Tenancy,
        directory: Directory,
        *,
        users: Users,
        bindings: RoleBindings,
        directories: Directories,
        passwords: Passwords,
        failures: Budgets[TenantId | None],
        denials: DenialSink,
        effects: Effects,
        issuer: Issuer,
        lifetime: timedelta,
    ) -> None:
        self._tenancy = tenancy
        self._directory = directory
        self._users = users
        self._bindings = bindings
        self._directories = directories
        self._passwords = passwords
        self._failures = failures
        self._denials = denials
        self._effects = effects
        self._issuer = issuer
        self._lifetime = lifetime

    async def run(self, call: Call, command: LogInCommand) -> LoggedIn:
        """A token with the roles that the user has now.

        Raises:
            Unauthenticated: reason CREDENTIALS_WRONG.
            FailedPrecondition: reason TENANT_NOT_ACTIVE.
            ResourceExhausted: reason LOG_IN_BUSY.
            Unavailable: reason SIGNING_KEY_UNAVAILABLE; nothing was counted.
        """
        # First: without a token to give, right passwords would be counted as wrong ones, and lock.
        self._issuer.check_key()
        try:
            return await self._run(call, command)
        except PasswordsBusy:
            raise _busy() from None

    async def _run(self, call: Call, command: LogInCommand) -> LoggedIn:
        try:
            tenant = self._tenancy.catalog.by_slug(Slug(command.slug))
        except UnknownTenant:
            raise await self._unknown(call, command) from None
        if tenant.state is not TenantState.ACTIVE:
            raise self._not_active(call, tenant)
        try:
            if await self._left_unread(tenant, command.email):
                self._deny(call, tenant.tenant_id, "LOG_IN_RATE", f"tenants/{tenant.slug}")
                raise _wrong()
            outcome = await self._directory.authenticate(tenant, command.email, command.password)
            done = await self._tenancy.run(
                tenant.tenant_id, lambda tx: self._take_effect(tx, call, tenant, outcome), write=True
            )
        except NotWritable:
            raise self._not_active(call, tenant) from None
        if done is None:
            self._failures.spend(tenant.tenant_id)
            raise _wrong()
        return done

    async def _left_unread(self, tenant: TenantEntry, email: str) -> bool:
        if self._failures.wait_s(tenant.tenant_id) == 0 or await self._directory.untried(tenant, email):
            return False
        await self._passwords.pretend()
        return True

    async def _unknown(self, call: Call, command: LogInCommand) -> Unauthenticated:
        if self._failures.wait_s(None) > 0:
            await self._passwords.pretend()
        else:
            with self._passwords.place(command.slug) as place:
                await place.verify(None, command.password)
            self._failures.spend(None)
        self._deny(call, PLATFORM_TENANT_ID, "TENANT_UNKNOWN", "")
        return _wrong()

    def _not_active(self, call: Call, tenant: TenantEntry) -> FailedPrecondition:
        self._deny(call, tenant.tenant_id, "TENANT_NOT_ACTIVE", f"tenants/{tenant.slug}")
        return FailedPrecondition("TENANT_NOT_ACTIVE", "The tenant is not active; ask its provider.")

    def _deny(self, call: Call, tenant_id: TenantId, reason: str, resource: str) -> None:
        self._denials.denied(
            DeniedCalls(
                tenant_id=tenant_id,
                home_tenant_id=tenant_id,
                principal=ANONYMOUS,
                method=call.method,
                reason=reason,
                resource=resource,
                first_time=self._effects.now(),
                count=1,
            )
        )

    async def _take_effect(
        self, tx: UnitOfWork, call: Call, tenant: TenantEntry, outcome: Authenticated | NotAuthenticated
    ) -> LoggedIn | None:
        if isinstance(outcome, NotAuthenticated):
            self._audit(tx, call, tenant, outcome.cause, outcome)
            return None
        ref = PrincipalRef(PrincipalKind.USER, outcome.user_id)
        first = await lock_to_onboard(tx, self._directories, self._bindings, ref)
        user = await self._users.lock(tx, outcome.user_id)
        if user is None or user.disabled or user.password_hash != outcome.proof:
            self._audit(tx, call, tenant, "USER_CHANGED_MEANWHILE", outcome)
            return None
        now = self._effects.now()
        bindings = await self._bindings.of(tx, ref)
        role = administrator_role_of(tx)
        if first and any(binding.makes_administrator(role) for binding in bindings):
            await self._directories.mark_first_admin_log_in(tx, now)
        await self._users.record_log_in(tx, user.id, now, outcome.rehashed)
        self._audit(tx, call, tenant, "OK", outcome)
        name = ref.name(tenant.slug)
        token = self._issuer.issue(
            tenant, name, token_roles(bindings), issued_at=now, expires_at=now + self._lifetime
        )
        return LoggedIn(token, name)

    def _audit(
        self,
        tx: UnitOfWork,
        call: Call,
        tenant: TenantEntry,
        outcome: str,
        who: Authenticated | NotAuthenticated,
    ) -> None:
        name = ""
        if who.user_id is not None:
            name = PrincipalRef(PrincipalKind.USER, who.user_id).name(tenant.slug)
        self._effects.audit(tx, call, resource=name, outcome=outcome, principal=name or ANONYMOUS)


def _wrong() -> Unauthenticated:
    return Unauthenticated("CREDENTIALS_WRONG", "Tenant, e-mail address and password do not go together.")


def _busy() -> ResourceExhausted:
    return ResourceExhausted("LOG_IN_BUSY", "Too many log-ins at once; try again.", retry_after_s=1.0)
