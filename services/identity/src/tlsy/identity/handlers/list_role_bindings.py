"""Who holds which role, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.identity.handlers.guards import check_onboarding_reads

if TYPE_CHECKING:
    from uuid import UUID

    from tlsy.identity.domain.bindings import RoleBinding
    from tlsy.identity.domain.ids import PrincipalRef
    from tlsy.identity.ports import Directories, RoleBindings
    from tlsy.rpc.call import Call
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


class ListRoleBindings:
    """Reads, in the order of creation."""

    def __init__(self, tenancy: Tenancy, bindings: RoleBindings, directories: Directories) -> None:
        self._tenancy = tenancy
        self._bindings = bindings
        self._directories = directories

    async def run(
        self, call: Call, principal: PrincipalRef | None, after: UUID, size: int
    ) -> tuple[list[RoleBinding], bool]:
        """At most `size` behind `after`, of one principal or of all, and whether there are more.

        Raises:
            PermissionDenied: reason ONBOARDING_CLOSED.
        """

        async def read(tx: UnitOfWork) -> list[RoleBinding]:
            await check_onboarding_reads(tx, self._directories, call)
            return await self._bindings.page(tx, principal, after, size + 1)

        found = await self._tenancy.run(call.required_tenant().tenant_id, read, write=False)
        return found[:size], len(found) > size
