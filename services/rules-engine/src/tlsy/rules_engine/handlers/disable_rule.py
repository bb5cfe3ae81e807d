"""Stops a rule; its versions stay."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb
from tlsy.rpc.idempotency import answer_once
from tlsy.rules_engine.handlers.changes import RuleChange, found_rule

if TYPE_CHECKING:
    from tlsy.rpc.call import Call
    from tlsy.rules_engine.domain.ast import RuleName
    from tlsy.rules_engine.handlers.changes import RuleChanges
    from tlsy.rules_engine.handlers.effects import Effects
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


class DisableRule:
    """Its incidents that are not resolved are, by the engine, as superseded. Publishing turns it on again."""

    def __init__(self, *, tenancy: Tenancy, changes: RuleChanges, effects: Effects) -> None:
        self._tenancy = tenancy
        self._changes = changes
        self._effects = effects

    async def run(self, call: Call, rule_id: RuleName, etag: str) -> pb.Rule:
        """The rule as it is now.

        Raises:
            NotFound: RULE_NOT_FOUND.
            Aborted: ETAG_MISMATCH.
        """

        async def work(tx: UnitOfWork) -> pb.Rule:
            async def act() -> pb.Rule:
                before = found_rule(await self._changes.locked(tx, rule_id, etag))
                after = before
                if before.enabled:
                    after = replace(
                        before,
                        enabled=False,
                        updated_at=self._effects.now(),
                        revision=before.revision + 1,
                        halted_at=None,
                        halt_reason="",
                    )
                return await self._changes.store(tx, call, RuleChange(before, after))

            return await answer_once(tx, call, self._effects.now(), pb.Rule, act)

        return await self._tenancy.run(call.required_tenant().tenant_id, work, write=True)
