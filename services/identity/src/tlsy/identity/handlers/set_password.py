"""A password: one's own with the old one, or another user's."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tlsy.identity.domain.ids import PrincipalKind, PrincipalRef, Problem, UserId
from tlsy.identity.domain.lockout import Attempts
from tlsy.identity.domain.passwords import password_problems
from tlsy.identity.domain.revocations import Cause
from tlsy.identity.handlers.guards import check_may_act_as, check_onboarding, refuse_problems
from tlsy.identity.ports import Authenticated, NotAuthenticated, PasswordsBusy
from tlsy.rpc.errors import NotFound, PermissionDenied, RecordedDenial, ResourceExhausted

if TYPE_CHECKING:
    from tlsy.identity.domain.users import User
    from tlsy.identity.handlers.effects import Effects
    from tlsy.identity.ports import Directories, Directory, Passwords, RoleBindings, Users
    from tlsy.rpc.call import Call
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork

_OTHERS = "users.write"


@dataclass(frozen=True, slots=True)
class SetPasswordCommand:
    """`old` is needed for one's own."""

    user_id: UserId
    new: str = field(repr=False)
    old: str = field(repr=False)


class SetPassword:
    """Ends the user's tokens everywhere, the caller's own too, and any lock.

    The old password is checked as at a log-in: wrong ones count and lock.
    """

    def __init__(
        self,
        tenancy: Tenancy,
        users: Users,
        *,
        bindings: RoleBindings,
        directories: Directories,
        directory: Directory,
        passwords: Passwords,
        effects: Effects,
    ) -> None:
        self._tenancy = tenancy
        self._users = users
        self._bindings = bindings
        self._directories = directories
        self._directory = directory
        self._passwords = passwords
        self._effects = effects

    async def run(self, call: Call, command: SetPasswordCommand) -> None:
        """Set it.

        Raises:
            InvalidArgument: with everything that is wrong with the new password.
            RecordedDenial: reason OLD_PASSWORD_WRONG (also while locked).
            PermissionDenied: reasons PERMISSION_MISSING, ROLE_ABOVE_CALLER, ONBOARDING_CLOSED.
            NotFound: reason USER_NOT_FOUND.
            ResourceExhausted: reason PASSWORDS_BUSY.
        """
        tenant = call.required_tenant()
        ref = PrincipalRef(PrincipalKind.USER, command.user_id)
        own = call.principal == ref.name(tenant.slug)
        if not own and _OTHERS not in call.permissions:
            raise PermissionDenied(
                "PERMISSION_MISSING", "You may set your own password only.", metadata={"permission": _OTHERS}
            )
        user = await self._tenancy.run(
            tenant.tenant_id, lambda tx: self._users.get(tx, command.user_id), write=False
        )
        if user is None:
            raise NotFound("USER_NOT_FOUND", "There is no such user.")
        problems = password_problems("new_password", command.new, user.email)
        if own and not command.old:
            problems.append(Problem("old_password", "OLD_PASSWORD_REQUIRED", "Give your present password."))
        refuse_problems(problems)
        try:
            # First what changes nothing: who is turned away here has not spent an attempt.
            with self._passwords.place(tenant.slug) as place:
                stored = await place.hash(command.new)
            proof = await self._prove(call, user, command.old) if own else None
        except PasswordsBusy:
            raise ResourceExhausted(
                "PASSWORDS_BUSY", "Too many at once; try again.", retry_after_s=1.0
            ) from None
        done = await self._tenancy.run(
            tenant.tenant_id, lambda tx: self._store(tx, call, ref, stored, proof), write=True
        )
        if not done:
            raise _wrong()

    async def _prove(self, call: Call, user: User, old: str) -> Authenticated | NotAuthenticated:
        return await self._directory.authenticate(call.required_tenant(), user.email, old)

    async def _store(
        self,
        tx: UnitOfWork,
        call: Call,
        ref: PrincipalRef,
        stored: str,
        proof: Authenticated | NotAuthenticated | None,
    ) -> bool:
        check_onboarding(call, await self._directories.lock(tx))
        user = await self._users.lock(tx, UserId(ref.id))
        if user is None:
            raise NotFound("USER_NOT_FOUND", "There is no such user.")
        name = ref.name(call.required_tenant().slug)
        if isinstance(proof, NotAuthenticated):
            self._effects.audit(tx, call, resource=name, outcome=proof.cause)
            return False
        if proof is None:
            held = await self._bindings.of(tx, ref)
            check_may_act_as(call, ref.kind, (binding.role for binding in held))
        elif user.password_hash != proof.proof:
            self._effects.audit(tx, call, resource=name, outcome="USER_CHANGED_MEANWHILE")
            return False
        changed = replace(user, password_hash=stored, attempts=Attempts(), version=user.version + 1)
        await self._users.save(tx, changed)
        await self._effects.revoke(tx, name, Cause.PASSWORD, last_issued=user.last_log_in_time)
        self._effects.audit(tx, call, resource=name)
        return True


def _wrong() -> RecordedDenial:
    return RecordedDenial("OLD_PASSWORD_WRONG", "This is not your present password.")
