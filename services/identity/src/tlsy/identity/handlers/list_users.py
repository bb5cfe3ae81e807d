"""Users of the tenant, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.identity.handlers.guards import check_onboarding_reads

if TYPE_CHECKING:
    from uuid import UUID

    from tlsy.identity.domain.users import User
    from tlsy.identity.ports import Directories, Users
    from tlsy.rpc.call import Call
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


class ListUsers:
    """Reads, in the order of creation."""

    def __init__(self, tenancy: Tenancy, users: Users, directories: Directories) -> None:
        self._tenancy = tenancy
        self._users = users
        self._directories = directories

    async def run(self, call: Call, after: UUID, size: int) -> tuple[list[User], bool]:
        """At most `size` behind `after`, and whether there are more.

        Raises:
            PermissionDenied: reason ONBOARDING_CLOSED.
        """

        async def read(tx: UnitOfWork) -> list[User]:
            await check_onboarding_reads(tx, self._directories, call)
            return await self._users.page(tx, after, size + 1)

        found = await self._tenancy.run(call.required_tenant().tenant_id, read, write=False)
        return found[:size], len(found) > size
