"""A role taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.identity.domain.ids import KeyId, PrincipalKind, UserId
from tlsy.identity.domain.revocations import Cause
from tlsy.identity.handlers.guards import (
    administrator_role_of,
    check_administrator_stays,
    check_may_act_as,
    check_onboarding,
)
from tlsy.rpc.errors import NotFound

if TYPE_CHECKING:
    from datetime import datetime

    from tlsy.identity.domain.bindings import RoleBinding
    from tlsy.identity.domain.ids import BindingId, PrincipalRef
    from tlsy.identity.handlers.effects import Effects
    from tlsy.identity.ports import ApiKeys, Directories, RoleBindings, Users
    from tlsy.rpc.call import Call
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


class DeleteRoleBinding:
    """Ends the principal's tokens, which still carry the role."""

    def __init__(
        self,
        tenancy: Tenancy,
        *,
        users: Users,
        keys: ApiKeys,
        bindings: RoleBindings,
        directories: Directories,
        effects: Effects,
    ) -> None:
        self._tenancy = tenancy
        self._users = users
        self._keys = keys
        self._bindings = bindings
        self._directories = directories
        self._effects = effects

    async def run(self, call: Call, binding_id: BindingId) -> None:
        """Delete it.

        Raises:
            NotFound: reason ROLE_BINDING_NOT_FOUND.
            FailedPrecondition: reason LAST_ADMINISTRATOR.
            PermissionDenied: reasons ROLE_ABOVE_CALLER, ONBOARDING_CLOSED.
        """

        async def act(tx: UnitOfWork) -> None:
            if await self._effects.replayed(tx, call) is not None:
                return
            check_onboarding(call, await self._directories.lock(tx))
            binding = await self._bindings.get(tx, binding_id)
            if binding is None:
                raise NotFound("ROLE_BINDING_NOT_FOUND", "There is no such role binding.")
            check_may_act_as(call, binding.principal.kind, [binding.role])
            last_issued = await self._lock_principal(tx, binding.principal)
            await self._check_administrator(tx, binding)
            await self._bindings.delete(tx, binding_id)
            name = binding.principal.name(call.required_tenant().slug)
            await self._effects.revoke(tx, name, Cause.ROLE, last_issued=last_issued)
            details = {"role": binding.role, "module": binding.module, "binding": str(binding.id)}
            self._effects.audit(tx, call, resource=name, details=details)
            self._effects.remember(tx, call, b"")

        await self._tenancy.run(call.required_tenant().tenant_id, act, write=True)

    async def _check_administrator(self, tx: UnitOfWork, binding: RoleBinding) -> None:
        if binding.makes_administrator(administrator_role_of(tx)):
            await check_administrator_stays(tx, self._bindings, binding.principal)

    async def _lock_principal(self, tx: UnitOfWork, principal: PrincipalRef) -> datetime | None:
        """Until the transaction ends no token is issued to the principal."""
        if principal.kind is PrincipalKind.USER:
            user = await self._users.lock(tx, UserId(principal.id))
            return user.last_log_in_time if user is not None else None
        key = await self._keys.lock(tx, KeyId(principal.id))
        return key.last_issued_time if key is not None else None
