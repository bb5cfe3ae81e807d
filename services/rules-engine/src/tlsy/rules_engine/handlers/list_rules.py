"""Rules of the tenant, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlsy.rpc.call import Call
    from tlsy.rules_engine.ports import Rules, StoredRule
    from tlsy.tenancy.unit_of_work import Tenancy


class ListRules:
    """Reads, by id."""

    def __init__(self, *, tenancy: Tenancy, rules: Rules) -> None:
        self._tenancy = tenancy
        self._rules = rules

    async def run(self, call: Call, after: str, size: int) -> tuple[Sequence[StoredRule], bool]:
        """At most `size` behind the id `after`, and whether there are more."""
        tenant_id = call.required_tenant().tenant_id
        found = await self._tenancy.run(
            tenant_id, lambda tx: self._rules.page(tx, after, size + 1), write=False
        )
        return found[:size], len(found) > size
