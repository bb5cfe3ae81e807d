"""Makes an earlier version live again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb
from tlsy.rpc.errors import FailedPrecondition
from tlsy.rpc.idempotency import answer_once
from tlsy.rules_engine.handlers.changes import RuleChange, find_version, found_rule, read_version
from tlsy.rules_engine.handlers.publish_rule import succeeding

if TYPE_CHECKING:
    from tlsy.rpc.call import Call
    from tlsy.rules_engine.domain.ast import RuleName
    from tlsy.rules_engine.domain.problems import RuleLimits
    from tlsy.rules_engine.handlers.changes import RuleChanges
    from tlsy.rules_engine.handlers.effects import Effects
    from tlsy.rules_engine.ports import Rules, StoredRule
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


class RollbackRule:
    """Publishing of a version that is there; it is not validated again, so what can be read works."""

    def __init__(
        self, *, tenancy: Tenancy, rules: Rules, changes: RuleChanges, effects: Effects, limits: RuleLimits
    ) -> None:
        self._tenancy = tenancy
        self._rules = rules
        self._changes = changes
        self._effects = effects
        self._limits = limits

    async def run(self, call: Call, rule_id: RuleName, version: str, etag: str) -> pb.Rule:
        """The rule as it is now; `version` is a hash, its beginning, or empty for the one live before.

        Raises:
            NotFound: RULE_NOT_FOUND, VERSION_NOT_FOUND.
            FailedPrecondition: NO_PREVIOUS_VERSION, VERSION_AMBIGUOUS, VERSION_UNREADABLE,
                RULES_NOT_COMPILABLE, RULE_LIMIT, RULE_COST_LIMIT.
            InvalidArgument: VERSION_INVALID.
            Aborted: ETAG_MISMATCH.
        """

        async def work(tx: UnitOfWork) -> pb.Rule:
            async def act() -> pb.Rule:
                before = found_rule(await self._changes.locked(tx, rule_id, etag))
                after = await self._back(tx, before, version)
                return await self._changes.store(tx, call, RuleChange(before, after))

            return await answer_once(tx, call, self._effects.now(), pb.Rule, act)

        return await self._tenancy.run(call.required_tenant().tenant_id, work, write=True)

    async def _back(self, tx: UnitOfWork, before: StoredRule, asked: str) -> StoredRule:
        wanted = asked or before.previous_version
        if wanted is None:
            raise FailedPrecondition("NO_PREVIOUS_VERSION", "No other version was live before this one.")
        version = await find_version(tx, self._rules, before.rule_id, wanted, "version_id")
        rule = read_version(version, self._limits)
        same = before.live_version == version.version_id and before.enabled == rule.enabled
        if same and before.halted_at is None:
            return before
        after = replace(
            before,
            display_name=rule.description,
            event_type=rule.event_type,
            enabled=rule.enabled,
            live_version=version.version_id,
            document=version.document,
            updated_at=self._effects.now(),
            halted_at=None,
            halt_reason="",
        )
        return succeeding(before, after)
