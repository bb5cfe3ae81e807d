"""A role for a principal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID

from tlsy.identity.domain.bindings import RoleBinding, module_problems, role_problems
from tlsy.identity.domain.ids import BindingId, KeyId, PrincipalKind, UserId
from tlsy.identity.handlers.guards import check_may_act_as, check_onboarding, refuse_problems
from tlsy.rpc.errors import AlreadyExists, FailedPrecondition, NotFound
from tlsy.rpc.permissions import MODULES, ROLES
from tlsy.runtime.ids import PLATFORM_TENANT_ID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlsy.identity.domain.ids import PrincipalRef
    from tlsy.identity.handlers.effects import Effects
    from tlsy.identity.ports import ApiKeys, Directories, RoleBindings, Users
    from tlsy.rpc.call import Call
    from tlsy.rpc.errors import Violation
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork

#: All of a principal's roles must fit into a token.
MAX_BINDINGS: Final = 40


@dataclass(frozen=True, slots=True)
class CreateRoleBindingCommand:
    """`module` "" is every module; with `violations` of its name `principal` is a placeholder."""

    principal: PrincipalRef
    role: str
    module: str
    violations: Sequence[Violation] = ()


class CreateRoleBinding:
    """Takes effect with the principal's next token."""

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

    async def run(self, call: Call, command: CreateRoleBindingCommand) -> RoleBinding:
        """The binding as stored.

        Raises:
            PermissionDenied: reasons ROLE_ABOVE_CALLER, ONBOARDING_CLOSED.
            InvalidArgument: reasons ROLE_UNKNOWN, MODULE_UNKNOWN.
            NotFound: reason PRINCIPAL_NOT_FOUND.
            AlreadyExists: reason ROLE_ALREADY_BOUND.
            FailedPrecondition: reason ROLE_BINDING_LIMIT.
        """
        # First: to reach for a role above one's own is a denial, whatever else is wrong.
        check_may_act_as(call, command.principal.kind, ROLES.keys() & {command.role})
        in_platform = call.required_tenant().tenant_id == PLATFORM_TENANT_ID
        problems = role_problems("role_binding.role", command.role, ROLES, in_platform_tenant=in_platform)
        problems += module_problems("role_binding.module", command.module, MODULES)
        refuse_problems(problems, command.violations)
        return await self._tenancy.run(
            call.required_tenant().tenant_id, lambda tx: self._store(tx, call, command), write=True
        )

    async def _store(self, tx: UnitOfWork, call: Call, command: CreateRoleBindingCommand) -> RoleBinding:
        stored = await self._effects.replayed(tx, call)
        if stored is not None:
            return await self._again(tx, BindingId(UUID(bytes=stored)))
        check_onboarding(call, await self._directories.lock(tx))
        if not await self._principal_exists(tx, command.principal):
            raise NotFound("PRINCIPAL_NOT_FOUND", "There is no such user or usable API key.")
        if len(await self._bindings.of(tx, command.principal)) >= MAX_BINDINGS:
            raise FailedPrecondition("ROLE_BINDING_LIMIT", f"A principal has at most {MAX_BINDINGS} roles.")
        binding = RoleBinding(
            id=BindingId(self._effects.new_id()),
            principal=command.principal,
            role=command.role,
            module=command.module,
            create_time=self._effects.now(),
        )
        if not await self._bindings.insert(tx, binding):
            raise AlreadyExists("ROLE_ALREADY_BOUND", "The principal has this role there already.")
        name = command.principal.name(call.required_tenant().slug)
        details = {"role": command.role, "module": command.module, "binding": str(binding.id)}
        self._effects.audit(tx, call, resource=name, details=details)
        self._effects.remember(tx, call, binding.id.bytes)
        return binding

    async def _principal_exists(self, tx: UnitOfWork, principal: PrincipalRef) -> bool:
        if principal.kind is PrincipalKind.USER:
            return await self._users.lock(tx, UserId(principal.id)) is not None
        key = await self._keys.lock(tx, KeyId(principal.id))
        return key is not None and key.revoke_time is None

    async def _again(self, tx: UnitOfWork, binding_id: BindingId) -> RoleBinding:
        binding = await self._bindings.get(tx, binding_id)
        if binding is None:
            raise NotFound("ROLE_BINDING_NOT_FOUND", "The binding that this request created is gone since.")
        return binding
