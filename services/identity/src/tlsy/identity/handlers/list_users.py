"""Users of the tenant, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

    from tlsy.identity.domain.users import User
    from tlsy.identity.ports import Users
    from tlsy.rpc.call import Call
    from tlsy.tenancy.unit_of_work import Tenancy


class ListUsers:
    """Reads, in the order of creation."""

    def __init__(self, tenancy: Tenancy, users: Users) -> None:
        self._tenancy = tenancy
        self._users = users

    async def run(self, call: Call, after: UUID, size: int) -> tuple[list[User], bool]:
        """At most `size` behind `after`, and whether there are more."""
        tenant_id = call.required_tenant().tenant_id
        found = await self._tenancy.run(
            tenant_id, lambda tx: self._users.page(tx, after, size + 1), write=False
        )
        return found[:size], len(found) > size
