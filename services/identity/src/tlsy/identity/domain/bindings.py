"""Who holds which role, and who may give it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tlsy.identity.domain.ids import BindingId, PrincipalKind, PrincipalRef, Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

CLIENT_ADMIN: Final = "client-admin"
INTERNAL_ADMIN: Final = "internal-admin"
ONBOARDING: Final = "onboarding"
AGENT: Final = "agent"

#: Roles that only exchanged tokens, or services' own, carry.
_UNBOUND: Final = frozenset({ONBOARDING, "service"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleBinding:
    """A role given to a principal of the tenant, in one module or (module "") in all."""

    id: BindingId
    principal: PrincipalRef
    role: str
    module: str
    create_time: datetime

    def makes_administrator(self, role: str) -> bool:
        """Whether it is what `role`, the tenant's administrator role, is held by."""
        return self.role == role and not self.module


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryFacts:
    """What a tenant's directory remembers of itself.

    Attributes:
        onboarded: an administrator of the tenant has logged in, ever.
        bootstrapped: the settings' first administrator has been made.
    """

    onboarded: bool
    bootstrapped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Granter:
    """Who gives a role.

    Attributes:
        permissions: what the granter may do, in every module.
        onboarding: it holds only what the provider has until the tenant's first administrator logs in.
    """

    permissions: frozenset[str]
    onboarding: bool


def role_problems(
    field: str, role: str, roles: Collection[str], *, in_platform_tenant: bool
) -> list[Problem]:
    """What keeps `role` from being bound to anybody in this tenant."""
    if role not in roles or role in _UNBOUND:
        return [Problem(field, "ROLE_UNKNOWN", "ListRoles names the roles there are.")]
    if role == INTERNAL_ADMIN and not in_platform_tenant:
        return [
            Problem(field, "ROLE_OF_PLATFORM_ONLY", "This role exists in the platform's own tenant only.")
        ]
    return []


def module_problems(field: str, module: str, modules: Collection[str]) -> list[Problem]:
    """What is wrong with the module of a binding; "" is every module. One that is off now is allowed."""
    if module and module not in modules:
        return [Problem(field, "MODULE_UNKNOWN", f"One of {', '.join(sorted(modules))}, or empty for all.")]
    return []


def may_give(granter: Granter, role: str, kind: PrincipalKind, permits: Mapping[str, frozenset[str]]) -> bool:
    """Whether the granter may let somebody act in `role`: only with every permission of it.

    The one exception is onboarding: the provider may make a tenant's first administrator, a user, and keys
    for its agents, and can be neither itself.
    """
    if permits[role] <= granter.permissions:
        return True
    return granter.onboarding and (
        (kind is PrincipalKind.USER and role == CLIENT_ADMIN)
        or (kind is PrincipalKind.API_KEY and role == AGENT)
    )


def administrator_role(*, in_platform_tenant: bool) -> str:
    """The role that a tenant must not be without once somebody has it."""
    return INTERNAL_ADMIN if in_platform_tenant else CLIENT_ADMIN


def leaves_no_administrator(administrators: Collection[PrincipalRef], leaving: PrincipalRef) -> bool:
    """Whether the tenant would be without administrator. `administrators`: those who can act as such now."""
    return leaving in administrators and set(administrators) == {leaving}
