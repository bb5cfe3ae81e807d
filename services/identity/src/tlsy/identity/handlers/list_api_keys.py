"""API keys of the tenant, revoked ones too, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.identity.handlers.guards import check_onboarding_reads

if TYPE_CHECKING:
    from uuid import UUID

    from tlsy.identity.domain.api_keys import ApiKey
    from tlsy.identity.ports import ApiKeys, Directories
    from tlsy.rpc.call import Call
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


class ListApiKeys:
    """Reads, in the order of creation."""

    def __init__(self, tenancy: Tenancy, keys: ApiKeys, directories: Directories) -> None:
        self._tenancy = tenancy
        self._keys = keys
        self._directories = directories

    async def run(self, call: Call, after: UUID, size: int) -> tuple[list[ApiKey], bool]:
        """At most `size` behind `after`, and whether there are more.

        Raises:
            PermissionDenied: reason ONBOARDING_CLOSED.
        """

        async def read(tx: UnitOfWork) -> list[ApiKey]:
            await check_onboarding_reads(tx, self._directories, call)
            return await self._keys.page(tx, after, size + 1)

        found = await self._tenancy.run(call.required_tenant().tenant_id, read, write=False)
        return found[:size], len(found) > size
