"""Lists clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlsy.rpc.call import Call
    from tlsy.tenant_registry.domain.placement import Cluster
    from tlsy.tenant_registry.handlers.catalogue import Catalogue


class ListClusters:
    """A page, by id."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def run(self, call: Call, after: str, limit: int) -> Sequence[Cluster]:
        """At most `limit` clusters from behind `after`."""
        async with self._catalogue.reading(call) as tx:
            return await self._catalogue.places.clusters(tx, after, limit)
