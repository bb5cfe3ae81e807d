"""The fields that the tenant's events have had."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlsy.rpc.call import Call
    from tlsy.rules_engine.ports import ObservedField, ObservedFields
    from tlsy.tenancy.unit_of_work import Tenancy


class ListObservedFields:
    """Reads; the setting `max_observed_fields` sees to it that they come in one page."""

    def __init__(self, *, tenancy: Tenancy, observed: ObservedFields) -> None:
        self._tenancy = tenancy
        self._observed = observed

    async def run(self, call: Call, event_type: str) -> Sequence[ObservedField]:
        """Of one type, or with "" of all."""
        return await self._tenancy.run(
            call.required_tenant().tenant_id,
            lambda tx: self._observed.load(tx, event_type),
            write=False,
        )
