"""Refuses the writes of a tenant and of all below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.rpc.etags import check_etag
from tlsy.rpc.idempotency import answer_once
from tlsy.tenant_registry.domain.tenant import suspended
from tlsy.tenant_registry.handlers.catalogue import refuse_platform
from tlsy.tenant_registry.handlers.refusals import refusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsy.rpc.call import Call
    from tlsy.tenant_registry.domain.tenant import Tenant
    from tlsy.tenant_registry.handlers.catalogue import Catalogue


class SuspendTenant:
    """Changes the catalogue in one transaction, then waits until every fence concerned is closed."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def run(
        self,
        call: Call,
        slug: str,
        reason: str,
        etag: str,
        encode: Callable[[Tenant], tenant_pb2.Tenant],
    ) -> tenant_pb2.Tenant:
        """The tenant, SUSPENDED; no transaction that writes for it is open any more.

        Raises:
            NotFound: TENANT_NOT_FOUND.
            FailedPrecondition: TENANT_NOT_ACTIVE, PLATFORM_TENANT.
            Aborted: ETAG_MISMATCH.
            Unavailable: FENCE_PENDING; the suspension stands and is enforced as soon as possible.
        """
        catalogue = self._catalogue
        async with catalogue.writing() as tx:

            async def act() -> tenant_pb2.Tenant:
                family = await catalogue.lock(tx, call, slug)
                check_etag(etag, family.tenant.etag)
                refuse_platform(family.tenant)
                with refusals():
                    changed = suspended(family.tenant, family.parent, reason, catalogue.clock.now())
                saved = await catalogue.save(tx, call, family, changed, "suspended")
                catalogue.effects.audited(tx, call, f"tenants/{slug}", {"reason": reason}, tenant=saved)
                return encode(saved)

            answer = await answer_once(tx, call, catalogue.clock.now(), tenant_pb2.Tenant, act)
        await catalogue.fences_moved(call, slug)
        return answer
