"""Changes a tenant's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.rpc.errors import PermissionDenied
from tlsy.rpc.etags import check_etag
from tlsy.rpc.idempotency import answer_once
from tlsy.tenant_registry.domain.changes import change_violations, excesses, forbidden_changes, updated
from tlsy.tenant_registry.handlers.refusals import refusals, refuse_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tlsy.rpc.call import Call
    from tlsy.rpc.errors import Violation
    from tlsy.tenant_registry.domain.changes import Changes
    from tlsy.tenant_registry.domain.tenant import Tenant
    from tlsy.tenant_registry.handlers.catalogue import Catalogue
    from tlsy.tenant_registry.handlers.create_tenant import Installation


class UpdateTenant:
    """By the platform or the tenant itself; what a tier's change means below is in the same transaction."""

    def __init__(self, catalogue: Catalogue, installation: Installation) -> None:
        self._catalogue = catalogue
        self._installation = installation

    async def run(
        self,
        call: Call,
        slug: str,
        changes: Changes,
        etag: str,
        encode: Callable[[Tenant], tenant_pb2.Tenant],
        *,
        violations: Sequence[Violation] = (),
    ) -> tenant_pb2.Tenant:
        """The tenant as changed.

        `violations`: what was wrong with name and mask; `slug` is "" where the name was.

        Raises:
            InvalidArgument: with everything that is wrong.
            PermissionDenied: TIER_SET_BY_PROVIDER, PROVIDER_ACCESS_GRANTED_BY_TENANT.
            NotFound: TENANT_NOT_FOUND.
            NotWritable: a suspended tenant asks.
            Aborted: ETAG_MISMATCH.
            AlreadyExists: HOST_NAME_TAKEN.
        """
        catalogue = self._catalogue
        own = change_violations(
            changes,
            time_zones=self._installation.time_zones,
            base_domain=self._installation.base_domain,
        )
        if not slug:
            refuse_all(own, violations)
        async with catalogue.writing() as tx:

            async def act() -> tenant_pb2.Tenant:
                family = await catalogue.lock(tx, call, slug)
                beyond = excesses(family.tenant, changes, family.parent, by_platform=call.of_platform)
                refuse_all((*own, *beyond), violations)
                check_etag(etag, family.tenant.etag)
                reason = forbidden_changes(family.tenant, changes, by_platform=call.of_platform)
                if reason is not None:
                    raise PermissionDenied(reason, "This is for the other side to decide.")
                with refusals():
                    changed = updated(family.tenant, changes, family.parent, catalogue.clock.now())
                saved = await catalogue.save(tx, call, family, changed, "updated")
                details = {name: str(value) for name, value in changes.given().items()}
                catalogue.effects.audited(tx, call, f"tenants/{slug}", details, tenant=saved)
                return encode(saved)

            return await answer_once(tx, call, catalogue.clock.now(), tenant_pb2.Tenant, act)
