"""The port to the catalogue of tenants, and what it knows of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from tlsy.tenancy.context import TenantContext, TenantState
from tlsy.tenancy.errors import UnknownTenant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlsy.runtime.ids import Slug, TenantId
    from tlsy.tenancy.context import IsolationMode, Placement

#: Older than any: whatever the owner knows is news.
_NO_EPOCH: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantEntry:
    """One tenant as every service knows it. Holds no secret.

    Attributes:
        parent_id: None at the top.
        ancestors: parent first, root last.
        country: ISO 3166-1 alpha-2, lower case.
        state: the effective one: a tenant below a suspended one is suspended.
        entitlements: effective limits and flags (0 or 1) by key.
        provider_access: what the provider's administrators may do with a token exchanged for this tenant's:
            "NONE", "ONBOARDING" (until an administrator of the tenant has logged in) or "FULL".
        version: of the catalogue's change that this entry stems from; a lower one never replaces a higher.
    """

    tenant_id: TenantId
    slug: Slug
    parent_id: TenantId | None
    ancestors: tuple[TenantId, ...]
    country: str
    state: TenantState
    epoch: int
    mode: IsolationMode
    placement: Placement
    modules: frozenset[str]
    entitlements: Mapping[str, int]
    version: int
    sector_profile: str
    time_zone: str
    provider_access: str = "NONE"

    @property
    def context(self) -> TenantContext:
        """What it takes to enter this tenant."""
        return TenantContext(
            tenant_id=self.tenant_id,
            slug=self.slug,
            epoch=self.epoch,
            placement=self.placement,
            mode=self.mode,
        )


class Catalog(Protocol):
    """A local copy of the catalogue of tenants; it may be a moment behind its owner.

    Of a tenant whose newest entry cannot be read the last one that can stays in use, as if the owner were
    away, until a database refuses its epoch. Then, and where there is none, these raise TenantNotUnderstood.
    """

    def tenant(self, tenant_id: TenantId) -> TenantEntry:
        """The tenant of this id, else UnknownTenant."""
        ...

    def by_slug(self, slug: Slug) -> TenantEntry:
        """The tenant of this slug, else UnknownTenant."""
        ...

    async def refresh(self, tenant_id: TenantId, stale_epoch: int) -> TenantEntry:
        """Ask the owner, because `stale_epoch` was refused; returns what is known now within a deadline.

        Raises UnknownTenant if the owner has said that there is none. An owner that cannot be reached is no
        error where the copy has the tenant: that is returned; where it has not, CatalogUnavailable is raised.
        """
        ...

    async def catch_up(self) -> bool:
        """Read what the owner has changed until now; whether it answered within a deadline."""
        ...


async def known(catalog: Catalog, tenant_id: TenantId) -> TenantEntry:
    """The tenant, for one who has a token or a record of it. Raises as `refresh` does.

    Its owner is asked where the copy has none, or one that is not finished: who holds something of a tenant
    knows more than the copy.
    """
    try:
        entry = catalog.tenant(tenant_id)
    except UnknownTenant:
        return await catalog.refresh(tenant_id, _NO_EPOCH)
    if entry.state is TenantState.PROVISIONING:
        return await catalog.refresh(tenant_id, entry.epoch)
    return entry
