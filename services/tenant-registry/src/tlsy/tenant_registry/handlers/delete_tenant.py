"""Closes a tenant and queues its erasure."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from google.longrunning import operations_pb2

from tlsy.rpc.errors import FailedPrecondition, PermissionDenied
from tlsy.rpc.etags import check_etag
from tlsy.rpc.idempotency import answer_once
from tlsy.tenancy.context import TenantState
from tlsy.tenant_registry.domain.kinds import Verb
from tlsy.tenant_registry.domain.tenant import deleting
from tlsy.tenant_registry.handlers.catalogue import refuse_platform
from tlsy.tenant_registry.handlers.refusals import refusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsy.rpc.call import Call
    from tlsy.tenant_registry.domain.operation import Operation
    from tlsy.tenant_registry.domain.tenant import Tenant
    from tlsy.tenant_registry.handlers.catalogue import Catalogue
    from tlsy.tenant_registry.handlers.effects import Details

_ERASE_NOW: Final = "tenants.erase"


class DeleteTenant:
    """DELETING at once; erased after the retention time; the slug is free only once it is verified empty."""

    def __init__(self, catalogue: Catalogue, retention: timedelta) -> None:
        self._catalogue = catalogue
        self._retention = retention

    async def run(
        self,
        call: Call,
        slug: str,
        etag: str,
        encode: Callable[[Operation, Tenant], operations_pb2.Operation],
        *,
        skip_retention: bool,
    ) -> operations_pb2.Operation:
        """The operation, running.

        Raises:
            NotFound: TENANT_NOT_FOUND.
            PermissionDenied: PERMISSION_MISSING; erasing now takes a permission of its own.
            FailedPrecondition: HAS_SUB_TENANTS, PLATFORM_TENANT, TENANT_STATE.
            Aborted: ETAG_MISMATCH.
        """
        if skip_retention and _ERASE_NOW not in call.permissions:
            raise PermissionDenied(
                "PERMISSION_MISSING",
                f'Erasing before the retention time takes "{_ERASE_NOW}".',
                metadata={"permission": _ERASE_NOW},
            )
        catalogue = self._catalogue
        async with catalogue.writing() as tx:

            async def act() -> operations_pb2.Operation:
                now = catalogue.clock.now()
                family = await catalogue.lock(tx, call, slug)
                check_etag(etag, family.tenant.etag)
                refuse_platform(family.tenant)
                if family.descendants:
                    raise FailedPrecondition("HAS_SUB_TENANTS", "Delete its sub-tenants first.")
                never_active = family.tenant.phase is TenantState.FAILED
                wait = timedelta(0) if skip_retention or never_active else self._retention
                with refusals():
                    changed = deleting(family.tenant, now + wait, now)
                saved = await catalogue.tenants.save(tx, changed)
                catalogue.effects.tenant_changed(tx, saved, "deleting")
                operation = await catalogue.start(
                    tx, Verb.DELETE, owner=call.tenant_id, target=saved, now=now
                )
                details: Details = {"skip_retention": skip_retention, "erase_after": (now + wait).isoformat()}
                catalogue.effects.audited(tx, call, f"tenants/{slug}", details, tenant=saved)
                return encode(operation, saved)

            return await answer_once(tx, call, catalogue.clock.now(), operations_pb2.Operation, act)
