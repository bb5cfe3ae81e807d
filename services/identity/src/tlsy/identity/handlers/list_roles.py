"""The roles there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlsy.identity.domain.bindings import role_problems
from tlsy.rpc.permissions import DESCRIPTIONS, ROLES
from tlsy.runtime.ids import PLATFORM_TENANT_ID

if TYPE_CHECKING:
    from tlsy.rpc.call import Call


@dataclass(frozen=True, slots=True)
class Role:
    """A role and what it permits, sorted."""

    id: str
    description: str
    permissions: tuple[str, ...]


class ListRoles:
    """From the table that every service evaluates."""

    def run(self, call: Call) -> list[Role]:
        """The roles that can be bound in the caller's tenant."""
        in_platform = call.required_tenant().tenant_id == PLATFORM_TENANT_ID
        return [
            Role(role, DESCRIPTIONS[role], tuple(sorted(permissions)))
            for role, permissions in sorted(ROLES.items())
            if not role_problems("role", role, ROLES, in_platform_tenant=in_platform)
        ]
