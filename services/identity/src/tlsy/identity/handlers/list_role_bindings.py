"""Who holds which role, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

    from tlsy.identity.domain.bindings import RoleBinding
    from tlsy.identity.domain.ids import PrincipalRef
    from tlsy.identity.ports import RoleBindings
    from tlsy.rpc.call import Call
    from tlsy.tenancy.unit_of_work import Tenancy


class ListRoleBindings:
    """Reads, in the order of creation."""

    def __init__(self, tenancy: Tenancy, bindings: RoleBindings) -> None:
        self._tenancy = tenancy
        self._bindings = bindings

    async def run(
        self, call: Call, principal: PrincipalRef | None, after: UUID, size: int
    ) -> tuple[list[RoleBinding], bool]:
        """At most `size` behind `after`, of one principal or of all, and whether there are more."""
        tenant_id = call.required_tenant().tenant_id
        found = await self._tenancy.run(
            tenant_id, lambda tx: self._bindings.page(tx, principal, after, size + 1), write=False
        )
        return found[:size], len(found) > size
