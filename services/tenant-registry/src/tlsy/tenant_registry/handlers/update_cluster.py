"""Changes how many tenants a cluster takes, or closes it for new ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.rpc.errors import NotFound
from tlsy.rpc.etags import check_etag
from tlsy.rpc.idempotency import answer_once

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsy.rpc.call import Call
    from tlsy.tenant_registry.domain.placement import Cluster
    from tlsy.tenant_registry.handlers.catalogue import Catalogue


class UpdateCluster:
    """Concerns new tenants only; who is there stays, also above the new number."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def run(
        self,
        call: Call,
        cluster_id: str,
        etag: str,
        encode: Callable[[Cluster], tenant_pb2.Cluster],
        *,
        max_tenants: int | None,
        cordoned: bool | None,
    ) -> tenant_pb2.Cluster:
        """The cluster as changed. Raises NotFound: CLUSTER_NOT_FOUND; Aborted: ETAG_MISMATCH."""
        catalogue = self._catalogue
        async with catalogue.writing() as tx:

            async def act() -> tenant_pb2.Cluster:
                cluster = await catalogue.places.lock_cluster(tx, cluster_id)
                if cluster is None:
                    raise NotFound("CLUSTER_NOT_FOUND", "There is no such cluster.")
                check_etag(etag, cluster.etag)
                changed = replace(
                    cluster,
                    max_tenants=cluster.max_tenants if max_tenants is None else max_tenants,
                    cordoned=cluster.cordoned if cordoned is None else cordoned,
                )
                saved = await catalogue.places.save_cluster(tx, changed)
                details = {"max_tenants": saved.max_tenants, "cordoned": saved.cordoned}
                catalogue.effects.audited(tx, call, f"clusters/{cluster_id}", details)
                return encode(saved)

            return await answer_once(tx, call, catalogue.clock.now(), tenant_pb2.Cluster, act)
