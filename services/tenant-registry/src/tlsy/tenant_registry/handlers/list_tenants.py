"""Lists tenants: all of them for the platform, itself and what is below it for a tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from tlsy.rpc.call import Call
    from tlsy.tenant_registry.domain.tenant import Tenant
    from tlsy.tenant_registry.handlers.catalogue import Catalogue
    from tlsy.tenant_registry.ports import TenantFilter


class ListTenants:
    """A page, by slug. What a tenant sees is decided by row-level security alone."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def run(
        self, call: Call, wanted: TenantFilter, after: tuple[str, UUID], limit: int
    ) -> Sequence[Tenant]:
        """At most `limit` tenants from behind (slug, id) `after`."""
        async with self._catalogue.reading(call) as tx:
            return await self._catalogue.tenants.page(tx, wanted, after, limit, once_each=call.of_platform)
