"""Which role permits what. One table for all services, evaluated locally on every call."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_READ: Final = frozenset({"tenants.get", "events.read", "incidents.read", "rules.read"})
_PEOPLE: Final = frozenset(
    {"users.read", "users.write", "roles.read", "roles.write", "keys.read", "keys.write", "tenants.get"}
)
_TENANT_ADMIN: Final = (
    _READ
    | _PEOPLE
    | {
        "events.write",  # so that they may give it to agents: nobody gives what they lack
        "incidents.write",
        "rules.write",
        "tenants.create",
        "tenants.list",
        "tenants.update",
        "tokens.exchange",
        "users.password",
    }
)
_PLATFORM: Final = frozenset(
    {
        "catalog.read",
        "clusters.read",
        "clusters.write",
        "keys.rotate",
        "tenants.delete",
        "tenants.entitlements",
        "tenants.erase",
        "tenants.modules",
        "tenants.suspend",
    }
)

#: Role to permissions. A permission that is in no role keeps a server from being built.
ROLES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "internal-admin": _TENANT_ADMIN | _PLATFORM,
        "client-admin": _TENANT_ADMIN,
        "operator": _READ | {"incidents.write", "users.password"},
        "viewer": _READ | {"users.password"},
        "rules-expert": _READ | {"rules.write", "users.password"},
        "agent": frozenset({"events.write"}),
        "onboarding": _PEOPLE | {"users.password"},
        "service": frozenset({"catalog.read", "clusters.read", "tenants.get", "tenants.list"}),
    }
)

#: What each role is for, as `ListRoles` says it.
DESCRIPTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "internal-admin": "The provider's administrators; in the platform tenant only.",
        "client-admin": "A tenant's administrators: people, keys, rules, incidents and sub-tenants.",
        "operator": "Works incidents.",
        "viewer": "Reads events, rules and incidents.",
        "rules-expert": "Writes rules.",
        "agent": "Sends events.",
        "onboarding": "Creates a tenant's first administrator and keys; only by token exchange.",
        "service": "A service of the suite; carried by service tokens only, never bound.",
    }
)

PERMISSIONS: Final = frozenset().union(*ROLES.values())

#: The parts of the product that a tenant can have switched on.
MODULES: Final = frozenset(
    {
        "supervision",
        "expert-rules",
        "reporting",
        "status-page",
        "billing",
        "audit-export",
        "enterprise-sso",
    }
)


@dataclass(frozen=True, slots=True)
class RoleBinding:
    """A role, in one module or (None) in all."""

    role: str
    module: str | None = None


@dataclass(frozen=True, slots=True)
class Grants:
    """What a set of role bindings permits, made once per token.

    Attributes:
        everywhere: permitted in every module, and in methods that belong to none.
        in_module: module to everything permitted there, `everywhere` included.
    """

    everywhere: frozenset[str]
    in_module: Mapping[str, frozenset[str]]

    def permissions(self, module: str) -> frozenset[str]:
        """What is permitted in a method of `module` ("" for none)."""
        return self.in_module.get(module, self.everywhere)


def grants_of(bindings: Iterable[RoleBinding]) -> Grants:
    """What these bindings permit together; a role that the table does not know permits nothing."""
    everywhere: frozenset[str] = frozenset()
    modules: dict[str, frozenset[str]] = {}
    for binding in bindings:
        granted = ROLES.get(binding.role, frozenset())
        if binding.module is None:
            everywhere |= granted
        else:
            modules[binding.module] = modules.get(binding.module, frozenset()) | granted
    return Grants(everywhere, {module: granted | everywhere for module, granted in modules.items()})
