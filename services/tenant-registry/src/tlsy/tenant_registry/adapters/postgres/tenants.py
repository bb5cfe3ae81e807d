"""The tables `tenants` and `host_names`."""

from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tlsy.rpc.errors import AlreadyExists
from tlsy.runtime.ids import TenantId
from tlsy.tenancy.context import IsolationMode, TenantState
from tlsy.tenant_registry.domain.kinds import ProviderAccess, SectorProfile, Tier
from tlsy.tenant_registry.domain.slug import skeleton
from tlsy.tenant_registry.domain.tenant import Tenant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

    import asyncpg

    from tlsy.tenancy.unit_of_work import UnitOfWork
    from tlsy.tenant_registry.ports import TenantFilter


class PostgresTenants:
    """See `tlsy.tenant_registry.ports.Tenants`."""

    def __init__(self, statements: Mapping[str, str]) -> None:
        self._sql = statements

    async def by_slug(self, tx: UnitOfWork, slug: str) -> Tenant | None:
        """See the port."""
        row = await tx.fetchrow(self._sql["get_tenant_by_slug"], slug)
        return None if row is None else _tenant(row)

    async def by_id(self, tx: UnitOfWork, tenant_id: TenantId) -> Tenant | None:
        """See the port."""
        row = await tx.fetchrow(self._sql["get_tenant_by_id"], tenant_id)
        return None if row is None else _tenant(row)

    async def lock_line(self, tx: UnitOfWork, tenant_id: TenantId) -> Sequence[Tenant]:
        """See the port."""
        return [_tenant(row) for row in await tx.fetch(self._sql["lock_line"], tenant_id)]

    async def lock_descendants(self, tx: UnitOfWork, tenant_id: TenantId) -> Sequence[Tenant]:
        """See the port."""
        return [_tenant(row) for row in await tx.fetch(self._sql["lock_descendants"], tenant_id)]

    async def lock_residents(self, tx: UnitOfWork, country: str) -> Sequence[Tenant]:
        """See the port."""
        return [_tenant(row) for row in await tx.fetch(self._sql["lock_residents"], country)]

    async def save_residency(self, tx: UnitOfWork, tenant: Tenant) -> None:
        """See the port."""
        await tx.execute(self._sql["update_residency"], tenant.tenant_id, sorted(tenant.residency))

    async def slug_holder(self, tx: UnitOfWork, slug: str) -> str | None:
        """See the port."""
        holder: str | None = await tx.fetchval(self._sql["get_slug_holder"], slug, skeleton(slug))
        return holder

    async def count_descendants(self, tx: UnitOfWork, tenant_id: TenantId) -> int:
        """See the port."""
        return int(await tx.fetchval(self._sql["count_descendants"], tenant_id))

    async def insert(self, tx: UnitOfWork, tenant: Tenant) -> Tenant | None:
        """See the port."""
        version = await tx.fetchval(self._sql["insert_tenant"], *_all_columns(tenant))
        if version is None:
            return None
        await self._save_host_names(tx, tenant)
        return replace(tenant, version=version)

    async def save(self, tx: UnitOfWork, tenant: Tenant) -> Tenant:
        """See the port."""
        version = await tx.fetchval(self._sql["update_tenant"], *_mutable_columns(tenant))
        await self._save_host_names(tx, tenant)
        return replace(tenant, version=version)

    async def page(
        self,
        tx: UnitOfWork,
        wanted: TenantFilter,
        after: tuple[str, UUID],
        limit: int,
        *,
        once_each: bool,
    ) -> Sequence[Tenant]:
        """See the port."""
        rows = await tx.fetch(
            self._sql["list_tenants"],
            once_each,
            *after,
            wanted.country or None,
            wanted.parent_slug or None,
            _texts(wanted.states) or None,
            _texts(wanted.isolation_modes) or None,
            wanted.sector_profile,
            wanted.cluster_id or None,
            limit,
        )
        return [_tenant(row) for row in rows]

    async def changed_since(self, tx: UnitOfWork, version: int, limit: int) -> Sequence[Tenant]:
        """See the port."""
        rows = await tx.fetch(self._sql["list_changes"], version, version > 0, limit)
        return [_tenant(row) for row in rows]

    async def find_host(self, tx: UnitOfWork, slug: str | None, host: str) -> tuple[TenantId, str] | None:
        """See the port."""
        row = await tx.fetchrow(self._sql["find_host"], slug, host)
        return None if row is None else (TenantId(row["subject_id"]), row["slug"])

    async def note_placed(self, tx: UnitOfWork, tenant_id: TenantId) -> None:
        """See the port."""
        await tx.execute(self._sql["note_placed"], tenant_id)

    async def check_host_names(self, tx: UnitOfWork, tenant: Tenant) -> None:
        """See the port."""
        _refuse_taken(
            await tx.fetchval(self._sql["find_taken_host_name"], tenant.tenant_id, tenant.host_names)
        )

    async def _save_host_names(self, tx: UnitOfWork, tenant: Tenant) -> None:
        if not tenant.host_names and tenant.version == 0:
            return
        names = () if tenant.phase is TenantState.DELETED else tenant.host_names
        _refuse_taken(await tx.fetchval(self._sql["save_host_names"], tenant.tenant_id, names))


def _refuse_taken(host_name: str | None) -> None:
    if host_name is not None:
        raise AlreadyExists(
            "HOST_NAME_TAKEN", "Another tenant has this host name.", metadata={"host_name": host_name}
        )


def _texts(values: Iterable[Any]) -> list[str]:
    return sorted(str(value) for value in values)


def _all_columns(tenant: Tenant) -> tuple[object, ...]:
    return (
        tenant.tenant_id,
        tenant.slug,
        skeleton(tenant.slug),
        tenant.display_name,
        tenant.country,
        tenant.parent_id,
        tenant.parent_slug,
        tenant.ancestor_ids,
        tenant.sector_profile,
        tenant.isolation_mode,
        tenant.tier,
        tenant.provider_access,
        tenant.locale,
        tenant.time_zone,
        tenant.currency_code,
        tenant.host_names,
        sorted(tenant.residency),
        tenant.requested_cluster,
        tenant.cluster_id,
        tenant.database,
        tenant.schema,
        tenant.phase,
        tenant.suspend_reason,
        tenant.failure_reason,
        tenant.state,
        tenant.epoch,
        sorted(tenant.modules),
        sorted(tenant.active_modules),
        json.dumps(dict(tenant.overrides)),
        json.dumps(dict(tenant.entitlements)),
        tenant.created_at,
        tenant.updated_at,
        tenant.erase_after,
        tenant.active_tier,
        tenant.placed,
    )


def _mutable_columns(tenant: Tenant) -> tuple[object, ...]:
    return (
        tenant.tenant_id,
        tenant.display_name,
        tenant.tier,
        tenant.provider_access,
        tenant.locale,
        tenant.time_zone,
        tenant.currency_code,
        tenant.host_names,
        tenant.phase,
        tenant.suspend_reason,
        tenant.failure_reason,
        tenant.state,
        tenant.epoch,
        sorted(tenant.modules),
        sorted(tenant.active_modules),
        json.dumps(dict(tenant.overrides)),
        json.dumps(dict(tenant.entitlements)),
        tenant.updated_at,
        tenant.erase_after,
        tenant.active_tier,
        tenant.placed,
        tenant.cluster_id,
    )


def _tenant(row: asyncpg.Record) -> Tenant:
    return Tenant(
        tenant_id=TenantId(row["subject_id"]),
        slug=row["slug"],
        display_name=row["display_name"],
        country=row["country"],
        parent_id=row["parent_id"],
        parent_slug=row["parent_slug"],
        ancestor_ids=tuple(row["ancestor_ids"]),
        sector_profile=SectorProfile(row["sector_profile"]),
        isolation_mode=IsolationMode(row["isolation_mode"]),
        tier=Tier(row["tier"]),
        provider_access=ProviderAccess(row["provider_access"]),
        locale=row["locale"],
        time_zone=row["time_zone"],
        currency_code=row["currency_code"],
        host_names=tuple(row["host_names"]),
        residency=frozenset(row["residency"]),
        requested_cluster=row["requested_cluster"],
        cluster_id=row["cluster_id"],
        database=row["database_name"],
        schema=row["schema_name"],
        phase=TenantState(row["phase"]),
        suspend_reason=row["suspend_reason"],
        failure_reason=row["failure_reason"],
        state=TenantState(row["state"]),
        epoch=row["epoch"],
        modules=frozenset(row["modules"]),
        active_modules=frozenset(row["active_modules"]),
        overrides=MappingProxyType(json.loads(row["overrides"])),
        entitlements=MappingProxyType(json.loads(row["entitlements"])),
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        erase_after=row["erase_after"],
        active_tier=Tier(row["active_tier"]),
        placed=row["placed"],
    )
