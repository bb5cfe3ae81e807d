"""A user and their personal data, gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.identity.domain.ids import PrincipalKind, PrincipalRef
from tlsy.identity.domain.revocations import Cause
from tlsy.identity.handlers.guards import check_administrator_stays, check_may_act_as, check_onboarding
from tlsy.rpc.errors import NotFound
from tlsy.rpc.etags import check_etag, etag_of

if TYPE_CHECKING:
    from tlsy.identity.domain.ids import UserId
    from tlsy.identity.handlers.effects import Effects
    from tlsy.identity.ports import Directories, RoleBindings, Users
    from tlsy.rpc.call import Call
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


class DeleteUser:
    """Erases the row; what remains elsewhere (audit, revocation) has the user's id and nothing personal."""

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

    async def run(self, call: Call, user_id: UserId, etag: str) -> None:
        """Delete and end every token.

        Raises:
            NotFound: reason USER_NOT_FOUND.
            Aborted: reason ETAG_MISMATCH.
            FailedPrecondition: reason LAST_ADMINISTRATOR.
            PermissionDenied: reasons ROLE_ABOVE_CALLER, ONBOARDING_CLOSED.
        """

        async def act(tx: UnitOfWork) -> None:
            if await self._effects.replayed(tx, call) is not None:
                return
            check_onboarding(call, await self._directories.lock(tx))
            user = await self._users.lock(tx, user_id)
            if user is None:
                raise NotFound("USER_NOT_FOUND", "There is no such user.")
            check_etag(etag, etag_of(user.id, user.version))
            ref = PrincipalRef(PrincipalKind.USER, user_id)
            held = await self._bindings.of(tx, ref)
            check_may_act_as(call, ref.kind, (binding.role for binding in held))
            await check_administrator_stays(tx, self._bindings, ref)
            await self._bindings.delete_of(tx, ref)
            await self._users.delete(tx, user_id)
            name = ref.name(call.required_tenant().slug)
            await self._effects.revoke(tx, name, Cause.USER, last_issued=user.last_log_in_time)
            self._effects.audit(tx, call, resource=name)
            self._effects.remember(tx, call, b"")

        await self._tenancy.run(call.required_tenant().tenant_id, act, write=True)
