"""Switches a module on or off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.rpc.errors import NotFound
from tlsy.rpc.idempotency import answer_once
from tlsy.tenant_registry.domain.changes import with_module
from tlsy.tenant_registry.domain.modules import REQUIRES
from tlsy.tenant_registry.handlers.refusals import refusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsy.rpc.call import Call
    from tlsy.tenant_registry.domain.tenant import Tenant
    from tlsy.tenant_registry.handlers.catalogue import Catalogue
    from tlsy.tenant_registry.handlers.effects import Details


class SetModule:
    """For the tenant; off also for all below it, whose own choice comes back when it is on again."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def run(
        self,
        call: Call,
        slug: str,
        module: str,
        encode: Callable[[Tenant], tenant_pb2.Module],
        *,
        enabled: bool,
    ) -> tenant_pb2.Module:
        """The module as it is then.

        Raises:
            NotFound: MODULE_UNKNOWN, TENANT_NOT_FOUND.
            FailedPrecondition: MODULE_REQUIRES, MODULE_REQUIRED, MODULE_EXCEEDS_PARENT, TENANT_STATE.
        """
        if module not in REQUIRES:
            raise NotFound("MODULE_UNKNOWN", f"The modules are: {', '.join(sorted(REQUIRES))}.")
        catalogue = self._catalogue
        async with catalogue.writing() as tx:

            async def act() -> tenant_pb2.Module:
                family = await catalogue.lock(tx, call, slug)
                now = catalogue.clock.now()
                with refusals():
                    changed = with_module(family.tenant, module, family.parent, enabled=enabled, now=now)
                saved = await catalogue.save(tx, call, family, changed, "module")
                details: Details = {"module": module, "enabled": enabled}
                catalogue.effects.audited(tx, call, f"tenants/{slug}", details, tenant=saved)
                return encode(saved)

            return await answer_once(tx, call, catalogue.clock.now(), tenant_pb2.Module, act)
