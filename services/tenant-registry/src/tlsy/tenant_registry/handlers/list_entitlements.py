"""Lists the entitlements of a tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tlsy.rpc.call import Call
    from tlsy.tenant_registry.domain.tenant import Tenant
    from tlsy.tenant_registry.handlers.catalogue import Catalogue


class ListEntitlements:
    """Every limit and flag, in effect for the tenant."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def run(self, call: Call, slug: str) -> Tenant:
        """The tenant, with its `entitlements` and `overrides`. Raises NotFound: TENANT_NOT_FOUND."""
        async with self._catalogue.reading(call) as tx:
            return await self._catalogue.get(tx, slug)
