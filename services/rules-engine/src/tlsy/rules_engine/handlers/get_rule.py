"""One rule with its live document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.rules_engine.handlers.changes import found_rule

if TYPE_CHECKING:
    from tlsy.rpc.call import Call
    from tlsy.rules_engine.domain.ast import RuleName
    from tlsy.rules_engine.ports import Rules, StoredRule
    from tlsy.tenancy.unit_of_work import Tenancy


class GetRule:
    """Reads."""

    def __init__(self, *, tenancy: Tenancy, rules: Rules) -> None:
        self._tenancy = tenancy
        self._rules = rules

    async def run(self, call: Call, rule_id: RuleName) -> StoredRule:
        """The rule. Raises NotFound: RULE_NOT_FOUND."""
        tenant_id = call.required_tenant().tenant_id
        return found_rule(
            await self._tenancy.run(tenant_id, lambda tx: self._rules.get(tx, rule_id), write=False)
        )
