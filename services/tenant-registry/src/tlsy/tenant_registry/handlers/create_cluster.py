"""Adds a cluster that tenants may be placed on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.rpc.errors import AlreadyExists
from tlsy.rpc.idempotency import answer_once
from tlsy.tenant_registry.domain.codes import is_country
from tlsy.tenant_registry.domain.errors import refuse
from tlsy.tenant_registry.domain.placement import cluster_violations
from tlsy.tenant_registry.handlers.refusals import refusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsy.rpc.call import Call
    from tlsy.tenant_registry.domain.placement import Cluster
    from tlsy.tenant_registry.handlers.catalogue import Catalogue


class CreateCluster:
    """Adds what the catalogue knows of it; that it answers is found out by the first tenant placed there."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def run(
        self, call: Call, cluster: Cluster, encode: Callable[[Cluster], tenant_pb2.Cluster]
    ) -> tenant_pb2.Cluster:
        """The cluster. Raises InvalidArgument, AlreadyExists: CLUSTER_EXISTS."""
        catalogue = self._catalogue
        async with catalogue.writing() as tx:

            async def act() -> tenant_pb2.Cluster:
                known = is_country(cluster.country) and await catalogue.places.country(tx, cluster.country)
                with refusals():
                    refuse(cluster_violations(cluster, country_known=bool(known)))
                if not await catalogue.places.add_cluster(tx, cluster):
                    raise AlreadyExists("CLUSTER_EXISTS", "This cluster is in the catalogue already.")
                details = {"country": cluster.country, "kind": str(cluster.kind), "region": cluster.region}
                catalogue.effects.audited(tx, call, f"clusters/{cluster.cluster_id}", details)
                return encode(replace(cluster, version=1))

            return await answer_once(tx, call, catalogue.clock.now(), tenant_pb2.Cluster, act)
