"""Answers when an operation is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlsy.tenant_registry.domain.operation import Outcome

if TYPE_CHECKING:
    from uuid import UUID

    from tlsy.rpc.call import Call
    from tlsy.tenant_registry.domain.operation import Operation
    from tlsy.tenant_registry.domain.tenant import Tenant
    from tlsy.tenant_registry.handlers.catalogue import Catalogue
    from tlsy.tenant_registry.handlers.get_operation import GetOperation

_MAX_WAIT_S: Final = 30.0


class WaitOperation:
    """Wakes with the transaction that ends the operation, on any replica; holds no connection meanwhile."""

    def __init__(self, catalogue: Catalogue, get_operation: GetOperation) -> None:
        self._catalogue = catalogue
        self._get = get_operation

    async def run(self, call: Call, operation_id: UUID) -> tuple[Operation, Tenant | None]:
        """The operation, done, or as it is after 30 s or shortly before the deadline. Raises NotFound."""
        clock = self._catalogue.clock
        until = clock.monotonic() + _MAX_WAIT_S
        while True:
            with self._catalogue.signals.watch([operation_id]) as changed:
                operation, tenant = await self._get.run(call, operation_id)
                if operation.outcome is not Outcome.RUNNING:
                    return operation, tenant
                if not await self._catalogue.wait(changed, call, until - clock.monotonic()):
                    return operation, tenant
