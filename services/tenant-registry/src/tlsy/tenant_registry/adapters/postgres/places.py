"""The tables `countries` and `clusters`: of the installation, not of a tenant."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tlsy.tenant_registry.domain.kinds import ClusterKind
from tlsy.tenant_registry.domain.placement import Cluster, Country

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import asyncpg

    from tlsy.tenancy.unit_of_work import UnitOfWork

#: An installation's clusters are placed among in memory.
_MAX_CLUSTERS: Final = 1_000


class PostgresPlaces:
    """See `tlsy.tenant_registry.ports.Places`."""

    def __init__(self, statements: Mapping[str, str]) -> None:
        self._sql = statements

    async def add_country(self, tx: UnitOfWork, country: Country) -> bool:
        """See the port."""
        allowed = sorted(country.allowed_cluster_countries)
        added = await tx.fetchval(self._sql["insert_country"], country.code, country.display_name, allowed)
        return added is not None

    async def country(self, tx: UnitOfWork, code: str) -> Country | None:
        """See the port."""
        row = await tx.fetchrow(self._sql["get_country"], code)
        return None if row is None else _country(row)

    async def lock_country(self, tx: UnitOfWork, code: str) -> Country | None:
        """See the port."""
        row = await tx.fetchrow(self._sql["lock_country"], code)
        return None if row is None else _country(row)

    async def save_country(self, tx: UnitOfWork, country: Country) -> Country:
        """See the port."""
        allowed = sorted(country.allowed_cluster_countries)
        version = await tx.fetchval(self._sql["update_country"], country.code, country.display_name, allowed)
        return replace(country, version=version)

    async def countries(self, tx: UnitOfWork, after: str, limit: int) -> Sequence[Country]:
        """See the port."""
        return [_country(row) for row in await tx.fetch(self._sql["list_countries"], after, limit)]

    async def add_cluster(self, tx: UnitOfWork, cluster: Cluster) -> bool:
        """See the port."""
        added = await tx.fetchval(
            self._sql["insert_cluster"],
            cluster.cluster_id,
            cluster.region,
            cluster.country,
            cluster.kind,
            cluster.secret_ref,
            cluster.max_tenants,
            cluster.cordoned,
        )
        return added is not None

    async def lock_cluster(self, tx: UnitOfWork, cluster_id: str) -> Cluster | None:
        """See the port."""
        row = await tx.fetchrow(self._sql["lock_cluster"], cluster_id)
        return None if row is None else _cluster(row)

    async def save_cluster(self, tx: UnitOfWork, cluster: Cluster) -> Cluster:
        """See the port."""
        version = await tx.fetchval(
            self._sql["update_cluster"], cluster.cluster_id, cluster.max_tenants, cluster.cordoned
        )
        return replace(cluster, version=version)

    async def clusters(
        self, tx: UnitOfWork, after: str = "", limit: int = _MAX_CLUSTERS
    ) -> Sequence[Cluster]:
        """See the port."""
        return [_cluster(row) for row in await tx.fetch(self._sql["list_clusters"], after, limit)]

    async def take_room(self, tx: UnitOfWork, cluster_id: str) -> bool:
        """See the port."""
        return await tx.fetchval(self._sql["take_room"], cluster_id) is not None

    async def give_room_back(self, tx: UnitOfWork, cluster_id: str) -> None:
        """See the port."""
        await tx.execute(self._sql["give_room_back"], cluster_id)

    async def note_reachable(
        self, tx: UnitOfWork, cluster_id: str, now: datetime, *, reachable: bool
    ) -> None:
        """See the port."""
        await tx.execute(self._sql["note_reachable"], cluster_id, reachable, now)

    async def note_schemas_full(self, tx: UnitOfWork, cluster_id: str, *, full: bool) -> None:
        """See the port."""
        await tx.execute(self._sql["note_schemas_full"], cluster_id, full)


def _country(row: asyncpg.Record) -> Country:
    return Country(
        code=row["code"],
        display_name=row["display_name"],
        allowed_cluster_countries=frozenset(row["allowed_cluster_countries"]),
        version=row["version"],
    )


def _cluster(row: asyncpg.Record) -> Cluster:
    return Cluster(
        cluster_id=row["cluster_id"],
        region=row["region"],
        country=row["country"],
        kind=ClusterKind(row["kind"]),
        secret_ref=row["secret_ref"],
        max_tenants=row["max_tenants"],
        cordoned=row["cordoned"],
        tenant_count=row["tenant_count"],
        reachable=row["reachable"],
        schemas_full=row["schemas_full"],
        version=row["version"],
    )
