"""Makes a document the live version of a rule."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb
from tlsy.rpc.errors import FailedPrecondition, InvalidArgument, Violation
from tlsy.rpc.idempotency import answer_once
from tlsy.rules_engine.domain.canonical import canonical_json, version_id
from tlsy.rules_engine.domain.validate import validate
from tlsy.rules_engine.handlers.changes import RuleChange
from tlsy.rules_engine.handlers.validate_rule import schema_of
from tlsy.rules_engine.ports import StoredRule, StoredVersion

if TYPE_CHECKING:
    from tlsy.rpc.call import Call
    from tlsy.rules_engine.domain.ast import Rule, RuleName
    from tlsy.rules_engine.domain.problems import RuleLimits
    from tlsy.rules_engine.handlers.changes import RuleChanges
    from tlsy.rules_engine.handlers.effects import Effects
    from tlsy.rules_engine.ports import ObservedFields, Rules
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


class PublishRule:
    """Creates the rule if there is none. The same document again is the same version."""

    def __init__(
        self,
        *,
        tenancy: Tenancy,
        rules: Rules,
        observed: ObservedFields,
        changes: RuleChanges,
        effects: Effects,
        limits: RuleLimits,
        max_versions: int,
    ) -> None:
        self._tenancy = tenancy
        self._rules = rules
        self._observed = observed
        self._changes = changes
        self._effects = effects
        self._limits = limits
        self._max_versions = max_versions

    async def run(self, call: Call, rule_id: RuleName, document: bytes, etag: str) -> pb.Rule:
        """The rule as it is now.

        Raises:
            InvalidArgument: RULE_INVALID, a violation per problem; its field is a JSON pointer.
            Aborted: ETAG_MISMATCH.
            FailedPrecondition: RULE_LIMIT, RULE_NAME_LIMIT, RULE_COST_LIMIT, VERSION_LIMIT,
                RULES_NOT_COMPILABLE.
        """

        async def work(tx: UnitOfWork) -> pb.Rule:
            async def act() -> pb.Rule:
                rule = await self._read(tx, rule_id, document)
                before = await self._changes.locked(tx, rule_id, etag)
                after = await self._next(tx, call, rule, before)
                return await self._changes.store(tx, call, RuleChange(before, after))

            return await answer_once(tx, call, self._effects.now(), pb.Rule, act)

        return await self._tenancy.run(call.required_tenant().tenant_id, work, write=True)

    async def _read(self, tx: UnitOfWork, rule_id: RuleName, document: bytes) -> Rule:
        schema = schema_of(await self._observed.load(tx))
        rule = await asyncio.to_thread(validate, document, schema, self._limits)
        if isinstance(rule, list):
            violations = [Violation(p.pointer, p.code.value, f"{p.message}; {p.hint}") for p in rule]
            raise InvalidArgument("RULE_INVALID", "The document is not a rule.", violations=violations)
        if rule.name != rule_id:
            text = f"must be {rule_id!r}, as in the resource name"
            raise InvalidArgument("RULE_INVALID", violations=[Violation("/name", "NAME_MISMATCH", text)])
        return rule

    async def _next(self, tx: UnitOfWork, call: Call, rule: Rule, before: StoredRule | None) -> StoredRule:
        now, version, stored = self._effects.now(), version_id(rule), canonical_json(rule).decode()
        in_force = before is not None and before.halted_at is None
        if (
            before is not None
            and in_force
            and (before.live_version, before.enabled) == (version, rule.enabled)
        ):
            return before
        if before is None or before.live_version != version:
            await self._add_version(tx, StoredVersion(
                rule_id=rule.name,
                version_id=version,
                document=stored,
                author=str(call.principal),
                created_at=now,
            ))  # fmt: skip
        after = StoredRule(
            rule_id=rule.name,
            display_name=rule.description,
            event_type=rule.event_type,
            enabled=rule.enabled,
            live_version=version,
            previous_version=None,
            document=stored,
            created_at=now,
            updated_at=now,
            revision=1,
        )
        return after if before is None else succeeding(before, after)

    async def _add_version(self, tx: UnitOfWork, version: StoredVersion) -> None:
        known = await self._rules.find_versions(tx, version.rule_id, version.version_id)
        if known:
            return
        if await self._rules.count_versions(tx, version.rule_id) >= self._max_versions:
            raise FailedPrecondition(
                "VERSION_LIMIT",
                f"A rule has at most {self._max_versions} versions; publish it under another name.",
                metadata={"limit": str(self._max_versions)},
            )
        await self._rules.add_version(tx, version)


def succeeding(before: StoredRule, after: StoredRule) -> StoredRule:
    """`after` as the next revision of `before`."""
    same = before.live_version == after.live_version
    return replace(
        after,
        previous_version=before.previous_version if same else before.live_version,
        created_at=before.created_at,
        revision=before.revision + 1,
    )
