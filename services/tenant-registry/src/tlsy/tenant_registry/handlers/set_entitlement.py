"""Overrides an entitlement, or takes the override back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.rpc.idempotency import answer_once
from tlsy.tenant_registry.domain.changes import entitlement_violations, with_entitlement
from tlsy.tenant_registry.domain.errors import refuse
from tlsy.tenant_registry.handlers.refusals import refusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsy.rpc.call import Call
    from tlsy.tenant_registry.domain.tenant import Tenant
    from tlsy.tenant_registry.handlers.catalogue import Catalogue


class SetEntitlement:
    """For the tenant; lowered also for all below it that had more."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def run(
        self,
        call: Call,
        slug: str,
        key: str,
        value: int | None,
        encode: Callable[[Tenant], tenant_pb2.Entitlement],
    ) -> tenant_pb2.Entitlement:
        """The entitlement as it is then.

        Raises:
            InvalidArgument: ENTITLEMENT_UNKNOWN, ENTITLEMENT_OUT_OF_RANGE, ENTITLEMENT_EXCEEDS_PARENT.
            NotFound: TENANT_NOT_FOUND.
            FailedPrecondition: TENANT_STATE.
        """
        catalogue = self._catalogue
        async with catalogue.writing() as tx:

            async def act() -> tenant_pb2.Entitlement:
                family = await catalogue.lock(tx, call, slug)
                with refusals():
                    refuse(entitlement_violations(key, value, family.parent))
                    changed = with_entitlement(
                        family.tenant, key, value, family.parent, catalogue.clock.now()
                    )
                saved = await catalogue.save(tx, call, family, changed, "entitlement")
                details = {"key": key, "value": "default" if value is None else str(value)}
                catalogue.effects.audited(tx, call, f"tenants/{slug}", details, tenant=saved)
                return encode(saved)

            return await answer_once(tx, call, catalogue.clock.now(), tenant_pb2.Entitlement, act)
