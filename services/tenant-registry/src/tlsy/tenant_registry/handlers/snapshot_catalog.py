"""Streams the catalogue as far as it changed since a place in its sequence of changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlsy.tenant_registry.handlers.effects import catalog_entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2
    from tlsy.rpc.call import Call
    from tlsy.tenant_registry.handlers.catalogue import Catalogue

_PAGE: Final = 200


class SnapshotCatalog:
    """Pages by version, each read in a transaction of its own: none is open while a reader is slow.

    Numbers become visible in their order, so nothing is missed between two pages; a tenant that changes
    meanwhile comes again, with its higher version.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def run(
        self, call: Call, since: int
    ) -> AsyncIterator[tuple[Sequence[tenant_registry_pb2.CatalogEntry], int]]:
        """Entries and the version up to which the reader then knows everything; one page at least."""
        while True:
            async with self._catalogue.reading(call) as tx:
                tenants = await self._catalogue.tenants.changed_since(tx, since, _PAGE)
            since = tenants[-1].version if tenants else since
            yield [catalog_entry(tenant) for tenant in tenants], since
            if len(tenants) < _PAGE:
                return
