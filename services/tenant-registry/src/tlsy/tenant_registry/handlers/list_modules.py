"""Lists the modules of a tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tlsy.rpc.call import Call
    from tlsy.tenant_registry.domain.tenant import Tenant
    from tlsy.tenant_registry.handlers.catalogue import Catalogue


class ListModules:
    """Every module of the product, and whether it is in effect for the tenant."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def run(self, call: Call, slug: str) -> Tenant:
        """The tenant, whose `active_modules` are on. Raises NotFound: TENANT_NOT_FOUND."""
        async with self._catalogue.reading(call) as tx:
            return await self._catalogue.get(tx, slug)
