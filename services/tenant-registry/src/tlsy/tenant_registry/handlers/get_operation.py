"""Reads one long-running operation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.rpc.errors import NotFound
from tlsy.tenant_registry.domain.operation import Outcome

if TYPE_CHECKING:
    from uuid import UUID

    from tlsy.rpc.call import Call
    from tlsy.tenant_registry.domain.operation import Operation
    from tlsy.tenant_registry.domain.tenant import Tenant
    from tlsy.tenant_registry.handlers.catalogue import Catalogue


class GetOperation:
    """An operation that the caller's tenant asked for, or any for the platform."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def run(self, call: Call, operation_id: UUID) -> tuple[Operation, Tenant | None]:
        """The operation and, where it succeeded, its tenant. Raises NotFound: OPERATION_NOT_FOUND."""
        async with self._catalogue.reading(call) as tx:
            operation = await self._catalogue.operations.get(tx, operation_id)
            if operation is None:
                raise NotFound("OPERATION_NOT_FOUND", "There is no such operation, or not any more.")
            if operation.outcome is not Outcome.SUCCEEDED:
                return operation, None
            return operation, await self._catalogue.tenants.by_id(tx, operation.target_id)
