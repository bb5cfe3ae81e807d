"""A catalogue of tenants in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.tenancy.errors import CatalogUnavailable, UnknownTenant

if TYPE_CHECKING:
    from tlsy.runtime.ids import Slug, TenantId
    from tlsy.tenancy.catalog import TenantEntry


class StaticCatalog:
    """A `tlsy.tenancy.catalog.Catalog` that a test writes.

    `put` is what everybody knows; `put_behind` is what only the owner knows until somebody refreshes. While
    the owner is `away` there is the copy alone.
    """

    def __init__(self) -> None:
        self._known: dict[TenantId, TenantEntry] = {}
        self._owned: dict[TenantId, TenantEntry] = {}
        self.refreshed: list[TenantId] = []
        #: Also services' calls for a snapshot are not answered meanwhile.
        self.away = False
        #: Of these the owner tells what no release can read, in its snapshots.
        self.unreadable: set[TenantId] = set()

    def put(self, entry: TenantEntry) -> None:
        """Make the entry known."""
        self._known[entry.tenant_id] = self._owned[entry.tenant_id] = entry

    def put_behind(self, entry: TenantEntry) -> None:
        """Let the owner have a newer entry than the copy."""
        self._owned[entry.tenant_id] = entry

    def forget(self, tenant_id: TenantId) -> None:
        """Let the tenant be deleted."""
        self._known.pop(tenant_id, None)
        self._owned.pop(tenant_id, None)

    def entries(self) -> tuple[TenantEntry, ...]:
        """All that are known."""
        return tuple(self._known.values())

    def tenant(self, tenant_id: TenantId) -> TenantEntry:
        """See `Catalog.tenant`."""
        try:
            return self._known[tenant_id]
        except KeyError:
            raise UnknownTenant(tenant_id) from None

    def by_slug(self, slug: Slug) -> TenantEntry:
        """See `Catalog.by_slug`."""
        for entry in self._known.values():
            if entry.slug == slug:
                return entry
        raise UnknownTenant(slug)

    async def refresh(self, tenant_id: TenantId, stale_epoch: int) -> TenantEntry:  # noqa: ARG002 - the port's
        """See `Catalog.refresh`."""
        self.refreshed.append(tenant_id)
        if self.away and tenant_id in self._known:
            return self._known[tenant_id]
        if self.away:
            raise CatalogUnavailable(tenant_id)
        if tenant_id not in self._owned:
            raise UnknownTenant(tenant_id)
        self._known[tenant_id] = self._owned[tenant_id]
        return self._known[tenant_id]

    async def catch_up(self) -> bool:
        """See `Catalog.catch_up`."""
        if not self.away:
            self._known = dict(self._owned)
        return not self.away
