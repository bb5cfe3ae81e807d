"""Lets a suspended tenant write again, or takes up a provisioning that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.rpc.etags import check_etag
from tlsy.rpc.idempotency import answer_once
from tlsy.tenancy.context import TenantState
from tlsy.tenant_registry.domain.kinds import Verb
from tlsy.tenant_registry.domain.registration import placed_anew
from tlsy.tenant_registry.domain.tenant import resumed, retried
from tlsy.tenant_registry.handlers.refusals import clusters_fill, refusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsy.rpc.call import Call
    from tlsy.tenancy.unit_of_work import UnitOfWork
    from tlsy.tenant_registry.domain.tenant import Tenant
    from tlsy.tenant_registry.handlers.catalogue import Catalogue


_MAX_CHOICES: Final = 5


class ResumeTenant:
    """SUSPENDED: ACTIVE again, with its line below. FAILED: PROVISIONING again, where it stopped.

    A FAILED tenant of which nothing was made yet is placed anew: its cluster may be full, or gone.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def run(
        self, call: Call, slug: str, etag: str, encode: Callable[[Tenant], tenant_pb2.Tenant]
    ) -> tenant_pb2.Tenant:
        """The tenant.

        Raises:
            NotFound: TENANT_NOT_FOUND.
            FailedPrecondition: TENANT_NOT_SUSPENDED, or as `placed_anew`.
            Aborted: ETAG_MISMATCH.
            Unavailable: FENCE_PENDING, CLUSTERS_CHANGING, or as `placed_anew`.
        """
        catalogue = self._catalogue
        async with catalogue.writing() as tx:

            async def act() -> tenant_pb2.Tenant:
                now = catalogue.clock.now()
                family = await catalogue.lock(tx, call, slug)
                check_etag(etag, family.tenant.etag)
                failed = family.tenant.phase is TenantState.FAILED
                with refusals():
                    changed = (
                        await self._placed(tx, retried(family.tenant, now))
                        if failed
                        else resumed(family.tenant, family.parent, now)
                    )
                saved = await catalogue.save(tx, call, family, changed, "resumed")
                if failed:
                    await catalogue.start(tx, Verb.CREATE, owner=call.tenant_id, target=saved, now=now)
                details = {"from": str(family.tenant.state)}
                catalogue.effects.audited(tx, call, f"tenants/{slug}", details, tenant=saved)
                return encode(saved)

            answer = await answer_once(tx, call, catalogue.clock.now(), tenant_pb2.Tenant, act)
        await catalogue.fences_moved(call, slug)
        return answer

    async def _placed(self, tx: UnitOfWork, tenant: Tenant) -> Tenant:
        if tenant.placed:
            return tenant
        places = self._catalogue.places
        for _ in range(_MAX_CHOICES):
            moved = placed_anew(tenant, await places.clusters(tx))
            if moved.cluster_id == tenant.cluster_id:
                return moved
            for cluster_id in sorted({moved.cluster_id, tenant.cluster_id}):
                await places.lock_cluster(tx, cluster_id)
            # Somebody else may have taken its last room, or closed it, before it was locked.
            if await places.take_room(tx, moved.cluster_id):
                await places.give_room_back(tx, tenant.cluster_id)
                return moved
        raise clusters_fill()
