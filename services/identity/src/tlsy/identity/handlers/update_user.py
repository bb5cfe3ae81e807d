"""A user's display name, locale, or whether they may log in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from tlsy.identity.domain.ids import PrincipalKind, PrincipalRef, UserId
from tlsy.identity.domain.revocations import Cause
from tlsy.identity.domain.users import profile_problems, updated
from tlsy.identity.handlers.guards import (
    check_administrator_stays,
    check_may_act_as,
    check_onboarding,
    refuse_problems,
)
from tlsy.rpc.errors import NotFound
from tlsy.rpc.etags import check_etag, etag_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from tlsy.identity.domain.users import User, UserChange
    from tlsy.identity.handlers.effects import Effects
    from tlsy.identity.ports import Directories, RoleBindings, Users
    from tlsy.rpc.call import Call
    from tlsy.rpc.errors import Violation
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateUserCommand:
    """What is to change.

    Attributes:
        mask: fields of `change` that count.
        etag: of the user as the caller read it; "" for whatever it is.
        violations: what was wrong with name and mask; then the name is a placeholder, and the mask a guess.
    """

    user_id: UserId
    change: UserChange
    mask: Collection[str]
    etag: str
    violations: Sequence[Violation] = ()


class UpdateUser:
    """Disabling ends the user's tokens everywhere."""

    def __init__(
        self,
        tenancy: Tenancy,
        users: Users,
        bindings: RoleBindings,
        directories: Directories,
        effects: Effects,
    ) -> None:
        self._tenancy = tenancy
        self._users = users
        self._bindings = bindings
        self._directories = directories
        self._effects = effects

    async def run(self, call: Call, command: UpdateUserCommand) -> User:
        """The user after the change.

        Raises:
            InvalidArgument: with everything that is wrong.
            NotFound: reason USER_NOT_FOUND.
            Aborted: reason ETAG_MISMATCH.
            FailedPrecondition: reason LAST_ADMINISTRATOR.
            PermissionDenied: reasons ROLE_ABOVE_CALLER, ONBOARDING_CLOSED.
        """
        user_id, change, mask = command.user_id, command.change, command.mask
        problems = profile_problems(
            "user.",
            change.display_name if "display_name" in mask else "",
            change.locale if "locale" in mask else "",
        )
        refuse_problems(problems, command.violations)

        async def act(tx: UnitOfWork) -> User:
            stored = await self._effects.replayed(tx, call)
            if stored is not None:
                return _found(await self._users.get(tx, UserId(UUID(bytes=stored))))
            check_onboarding(call, await self._directories.lock(tx))
            user = _found(await self._users.lock(tx, user_id))
            check_etag(command.etag, etag_of(user.id, user.version))
            changed = updated(user, change, mask)
            await self._check_and_revoke(tx, call, user, changed)
            await self._users.save(tx, changed)
            name = PrincipalRef(PrincipalKind.USER, user_id).name(call.required_tenant().slug)
            details = {"fields": ",".join(sorted(mask)), "disabled": changed.disabled}
            self._effects.audit(tx, call, resource=name, details=details)
            self._effects.remember(tx, call, user.id.bytes)
            return changed

        return await self._tenancy.run(call.required_tenant().tenant_id, act, write=True)

    async def _check_and_revoke(self, tx: UnitOfWork, call: Call, user: User, changed: User) -> None:
        ref = PrincipalRef(PrincipalKind.USER, user.id)
        held = await self._bindings.of(tx, ref)
        check_may_act_as(call, ref.kind, (binding.role for binding in held))
        if user.disabled or not changed.disabled:
            return
        await check_administrator_stays(tx, self._bindings, ref)
        name = ref.name(call.required_tenant().slug)
        await self._effects.revoke(tx, name, Cause.USER, last_issued=user.last_log_in_time)


def _found(user: User | None) -> User:
    if user is None:
        raise NotFound("USER_NOT_FOUND", "There is no such user.")
    return user
