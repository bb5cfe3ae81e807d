"""What a caller may do to whom, beyond the permission that the interceptor has checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.identity.domain.bindings import (
    ONBOARDING,
    Granter,
    administrator_role,
    leaves_no_administrator,
    may_give,
)
from tlsy.rpc.errors import FailedPrecondition, InvalidArgument, PermissionDenied, Violation
from tlsy.rpc.permissions import ROLES
from tlsy.runtime.ids import PLATFORM_TENANT_ID

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tlsy.identity.domain.bindings import DirectoryFacts
    from tlsy.identity.domain.ids import PrincipalKind, PrincipalRef, Problem
    from tlsy.identity.ports import Directories, RoleBindings
    from tlsy.rpc.call import Call
    from tlsy.tenancy.unit_of_work import UnitOfWork


def refuse_problems(problems: Sequence[Problem], also: Sequence[Violation] = ()) -> None:
    """Raise InvalidArgument with all of them, if there are any; `also`: what the translation found."""
    if problems or also:
        found = [Violation(item.field, item.reason, item.description) for item in problems]
        raise InvalidArgument(violations=[*also, *found])


def granter_of(call: Call) -> Granter:
    """What the caller may give others."""
    roles = {binding.role for binding in call.claims.roles} if call.claims is not None else set()
    return Granter(permissions=call.permissions, onboarding=roles == {ONBOARDING})


def check_onboarding(call: Call, facts: DirectoryFacts) -> None:
    """An onboarding token ends with the first log-in of an administrator, before it expires."""
    if facts.onboarded and granter_of(call).onboarding:
        raise PermissionDenied(
            "ONBOARDING_CLOSED", "An administrator of the tenant has logged in; onboarding is over."
        )


async def check_onboarding_reads(tx: UnitOfWork, directories: Directories, call: Call) -> None:
    """As `check_onboarding`, for who only reads: nobody else's reading asks the directory."""
    if granter_of(call).onboarding:
        check_onboarding(call, await directories.read(tx))


def check_may_act_as(call: Call, kind: PrincipalKind, roles: Iterable[str]) -> None:
    """Nobody gives, takes away or gets hold of permissions that they lack themselves."""
    granter = granter_of(call)
    above = sorted({role for role in roles if not may_give(granter, role, kind, ROLES)})
    if above:
        raise PermissionDenied(
            "ROLE_ABOVE_CALLER",
            "This needs every permission of the role, and you lack some.",
            metadata={"roles": ",".join(above)},
        )


def administrator_role_of(tx: UnitOfWork) -> str:
    """The role of those who administer the transaction's tenant."""
    return administrator_role(in_platform_tenant=tx.tenant_id == PLATFORM_TENANT_ID)


async def lock_to_onboard(
    tx: UnitOfWork, directories: Directories, bindings: RoleBindings, ref: PrincipalRef
) -> bool:
    """Whether this may be the tenant's first administrator to come in; the directory is locked then.

    Before the principal is, as by whoever changes principals. Nobody else who comes in locks it, and nobody
    who only names a principal of no role.
    """
    if (await directories.read(tx)).onboarded:
        return False
    role = administrator_role_of(tx)
    if not any(binding.makes_administrator(role) for binding in await bindings.of(tx, ref)):
        return False
    return not (await directories.lock(tx)).onboarded


async def check_administrator_stays(tx: UnitOfWork, bindings: RoleBindings, leaving: PrincipalRef) -> None:
    """The tenant's last administrator who can log in stays; API keys do not count.

    Under the directory's lock.
    """
    role = administrator_role_of(tx)
    if leaves_no_administrator(await bindings.administrators(tx, role), leaving):
        raise FailedPrecondition(
            "LAST_ADMINISTRATOR",
            "Make somebody else, who has a password, an administrator first.",
            metadata={"role": role},
        )
