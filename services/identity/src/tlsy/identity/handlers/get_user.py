"""One user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.identity.handlers.guards import check_onboarding_reads
from tlsy.rpc.errors import NotFound

if TYPE_CHECKING:
    from tlsy.identity.domain.ids import UserId
    from tlsy.identity.domain.users import User
    from tlsy.identity.ports import Directories, Users
    from tlsy.rpc.call import Call
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


class GetUser:
    """Reads."""

    def __init__(self, tenancy: Tenancy, users: Users, directories: Directories) -> None:
        self._tenancy = tenancy
        self._users = users
        self._directories = directories

    async def run(self, call: Call, user_id: UserId) -> User:
        """The user.

        Raises:
            NotFound: reason USER_NOT_FOUND.
            PermissionDenied: reason ONBOARDING_CLOSED.
        """

        async def read(tx: UnitOfWork) -> User | None:
            await check_onboarding_reads(tx, self._directories, call)
            return await self._users.get(tx, user_id)

        user = await self._tenancy.run(call.required_tenant().tenant_id, read, write=False)
        if user is None:
            raise NotFound("USER_NOT_FOUND", "There is no such user.")
        return user
