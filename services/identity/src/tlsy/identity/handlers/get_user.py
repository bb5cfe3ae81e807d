"""One user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.rpc.errors import NotFound

if TYPE_CHECKING:
    from tlsy.identity.domain.ids import UserId
    from tlsy.identity.domain.users import User
    from tlsy.identity.ports import Users
    from tlsy.rpc.call import Call
    from tlsy.tenancy.unit_of_work import Tenancy


class GetUser:
    """Reads."""

    def __init__(self, tenancy: Tenancy, users: Users) -> None:
        self._tenancy = tenancy
        self._users = users

    async def run(self, call: Call, user_id: UserId) -> User:
        """The user, or NotFound with reason USER_NOT_FOUND."""
        tenant_id = call.required_tenant().tenant_id
        user = await self._tenancy.run(tenant_id, lambda tx: self._users.get(tx, user_id), write=False)
        if user is None:
            raise NotFound("USER_NOT_FOUND", "There is no such user.")
        return user
