"""What the handlers need: the catalogue's tables, and somebody who says when operations change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection, Sequence
    from collections.abc import Set as AbstractSet
    from contextlib import AbstractContextManager
    from datetime import datetime
    from uuid import UUID

    from tlsy.runtime.ids import TenantId
    from tlsy.tenancy.context import IsolationMode, TenantState
    from tlsy.tenancy.unit_of_work import UnitOfWork
    from tlsy.tenant_registry.domain.kinds import SectorProfile, Verb
    from tlsy.tenant_registry.domain.operation import Operation
    from tlsy.tenant_registry.domain.placement import Cluster, Country
    from tlsy.tenant_registry.domain.tenant import Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantFilter:
    """Which tenants are asked for; what is empty does not filter, but DELETED ones must be asked for."""

    country: str = ""
    parent_slug: str = ""
    states: frozenset[TenantState] = field(default_factory=frozenset)
    isolation_modes: frozenset[IsolationMode] = field(default_factory=frozenset)
    sector_profile: SectorProfile | None = None
    cluster_id: str = ""


class Tenants(Protocol):
    """Tenants that the transaction's scope may see; writing needs the platform's scope.

    Locks are taken in one order: a country, then tenants from the top down, then a cluster, then the sequence
    of changes (which `insert` and `save` take).
    """

    async def by_slug(self, tx: UnitOfWork, slug: str) -> Tenant | None:
        """The tenant that has the slug now."""
        ...

    async def by_id(self, tx: UnitOfWork, tenant_id: TenantId) -> Tenant | None:
        """The tenant, also a DELETED one."""
        ...

    async def slug_holder(self, tx: UnitOfWork, slug: str) -> str | None:
        """The slug, this one or one that looks like it, that some tenant has."""
        ...

    async def lock_line(self, tx: UnitOfWork, tenant_id: TenantId) -> Sequence[Tenant]:
        """The tenant and its ancestors, topmost first, locked; empty if there is none such."""
        ...

    async def lock_descendants(self, tx: UnitOfWork, tenant_id: TenantId) -> Sequence[Tenant]:
        """All tenants below it, upper ones first, locked."""
        ...

    async def lock_residents(self, tx: UnitOfWork, country: str) -> Sequence[Tenant]:
        """The tenants of a country and all below them, upper ones first, locked."""
        ...

    async def save_residency(self, tx: UnitOfWork, tenant: Tenant) -> None:
        """Its residency alone, which nothing else changes. No change that anybody is told."""
        ...

    async def count_descendants(self, tx: UnitOfWork, tenant_id: TenantId) -> int:
        """How many tenants are below it."""
        ...

    async def insert(self, tx: UnitOfWork, tenant: Tenant) -> Tenant | None:
        """With its version; None: its slug has a holder. Raises AlreadyExists: HOST_NAME_TAKEN."""
        ...

    async def save(self, tx: UnitOfWork, tenant: Tenant) -> Tenant:
        """With its new version. Raises AlreadyExists: HOST_NAME_TAKEN."""
        ...

    async def note_placed(self, tx: UnitOfWork, tenant_id: TenantId) -> None:
        """From now on something of it may be on its cluster. No change that anybody is told."""
        ...

    async def check_host_names(self, tx: UnitOfWork, tenant: Tenant) -> None:
        """Raises AlreadyExists: HOST_NAME_TAKEN; another tenant has one of its host names."""
        ...

    async def page(
        self,
        tx: UnitOfWork,
        wanted: TenantFilter,
        after: tuple[str, UUID],
        limit: int,
        *,
        once_each: bool,
    ) -> Sequence[Tenant]:
        """By slug, from behind `after`; `once_each` in the platform's scope, which sees all viewers' rows."""
        ...

    async def changed_since(self, tx: UnitOfWork, version: int, limit: int) -> Sequence[Tenant]:
        """Those whose version is higher, lowest first; DELETED ones only where `version` is not 0."""
        ...

    async def find_host(self, tx: UnitOfWork, slug: str | None, host: str) -> tuple[TenantId, str] | None:
        """Id and slug of the tenant with this slug, or with this host name and the entitlement to it."""
        ...


class Places(Protocol):
    """Countries and clusters."""

    async def add_country(self, tx: UnitOfWork, country: Country) -> bool:
        """False: it is there already."""
        ...

    async def country(self, tx: UnitOfWork, code: str) -> Country | None:
        """The country of this code, which nobody changes before the end."""
        ...

    async def lock_country(self, tx: UnitOfWork, code: str) -> Country | None:
        """The country, whose policy nobody else reads or changes before the end."""
        ...

    async def save_country(self, tx: UnitOfWork, country: Country) -> Country:
        """Its name and its policy; with its new version."""
        ...

    async def countries(self, tx: UnitOfWork, after: str, limit: int) -> Sequence[Country]:
        """By code, from behind `after`."""
        ...

    async def add_cluster(self, tx: UnitOfWork, cluster: Cluster) -> bool:
        """False: it is there already."""
        ...

    async def lock_cluster(self, tx: UnitOfWork, cluster_id: str) -> Cluster | None:
        """The cluster, which nobody else changes before the end."""
        ...

    async def save_cluster(self, tx: UnitOfWork, cluster: Cluster) -> Cluster:
        """Its max_tenants and cordoned; with its new version."""
        ...

    async def clusters(self, tx: UnitOfWork, after: str = "", limit: int = 1_000) -> Sequence[Cluster]:
        """By id, from behind `after`."""
        ...

    async def take_room(self, tx: UnitOfWork, cluster_id: str) -> bool:
        """Count one more tenant; False: it became full or was cordoned meanwhile."""
        ...

    async def give_room_back(self, tx: UnitOfWork, cluster_id: str) -> None:
        """Count one tenant less."""
        ...

    async def note_reachable(
        self, tx: UnitOfWork, cluster_id: str, now: datetime, *, reachable: bool
    ) -> None:
        """What an attempt to reach it found."""
        ...

    async def note_schemas_full(self, tx: UnitOfWork, cluster_id: str, *, full: bool) -> None:
        """Whether its common database takes no further schema, as was found."""
        ...


class Operations(Protocol):
    """Long-running operations that the transaction's scope may see."""

    async def add(self, tx: UnitOfWork, operation: Operation) -> None:
        """A new one; wakes the provisioner at COMMIT."""
        ...

    async def save(self, tx: UnitOfWork, operation: Operation, now: datetime) -> None:
        """One that is still running in the table; if it ended, wakes who waits for it at COMMIT."""
        ...

    async def get(self, tx: UnitOfWork, operation_id: UUID) -> Operation | None:
        """The operation."""
        ...

    async def running(self, tx: UnitOfWork, verb: Verb, family: TenantId) -> Sequence[Operation]:
        """Those of `verb` on the tenant or on one below it that have not ended, 1,000 at most."""
        ...

    async def due(
        self,
        tx: UnitOfWork,
        now: datetime,
        until: datetime,
        *,
        busy: AbstractSet[TenantId],
        limit: int,
    ) -> Sequence[Operation]:
        """What is to be done now or `until` then, in that order: one of each tenant that is not busy.

        Of a tenant's operations that are due now the oldest; of one that has none, the next. Of those that
        are to be done now the ones that move a fence come before the others.
        """
        ...

    async def forget_ended(self, tx: UnitOfWork, before: datetime) -> None:
        """Delete those that ended before."""
        ...


class Signals(Protocol):
    """Says at once when operations end, whichever replica ended them."""

    def watch(self, operation_ids: Collection[UUID]) -> AbstractContextManager[asyncio.Event]:
        """An event that the end of one of them sets from now on; also when an end may be missed."""
        ...
