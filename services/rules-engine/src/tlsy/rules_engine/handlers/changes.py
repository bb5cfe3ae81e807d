"""How the live version of a rule is changed: the same for publishing, rolling back and disabling."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlsy.rpc.errors import FailedPrecondition, InvalidArgument, NotFound, Violation
from tlsy.rpc.etags import check_etag
from tlsy.rules_engine.domain.canonical import NotCanonicalError, load_rule
from tlsy.rules_engine.domain.compiler import compile_rules
from tlsy.rules_engine.domain.cost import rule_cost
from tlsy.rules_engine.handlers.messages import rule_etag, to_rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb
    from tlsy.rpc.call import Call
    from tlsy.rules_engine.domain.ast import Rule, RuleName, VersionId
    from tlsy.rules_engine.domain.problems import RuleLimits
    from tlsy.rules_engine.handlers.effects import Effects
    from tlsy.rules_engine.ports import Rules, StoredRule, StoredVersion
    from tlsy.tenancy.unit_of_work import UnitOfWork

_LIMIT = "rules"
#: The entitlement says how many rules may be on; so many times as many may be there.
_ALL_PER_ON = 10
_SHORTEST_HASH = 8
_HASH_DIGITS = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class RuleChange:
    """A rule before and after; `before` is None for a new one."""

    before: StoredRule | None
    after: StoredRule


class RuleChanges:
    """Stores a change of a rule with its audit record and its event. Under the rule set's lock."""

    def __init__(self, rules: Rules, effects: Effects, limits: RuleLimits) -> None:
        self._rules = rules
        self._effects = effects
        self._limits = limits

    async def locked(self, tx: UnitOfWork, rule_id: RuleName, etag: str) -> StoredRule | None:
        """The rule as nobody else can change it; an etag given must be the rule's.

        Raises:
            Aborted: ETAG_MISMATCH.
        """
        await self._rules.lock_set(tx)
        rule = await self._rules.get(tx, rule_id)
        check_etag(etag, "" if rule is None else rule_etag(tx.tenant_id, rule))
        return rule

    async def store(self, tx: UnitOfWork, call: Call, change: RuleChange) -> pb.Rule:
        """The rule's message. A change that changes nothing is audited, and tells nobody else.

        Raises:
            FailedPrecondition: RULE_LIMIT; one more would be on than the tenant may have. RULE_COST_LIMIT,
                RULES_NOT_COMPILABLE.
        """
        before, after = change.before, change.after
        message = to_rule(after, call.required_tenant().slug, tx.tenant_id)
        if before != after:
            if after.enabled and (before is None or not before.enabled):
                await self._check_limit(tx, call)
            if before is None:
                await self._check_all(tx, call)
            await self._rules.save(tx, after)
            if after.enabled:
                await self._check_together(tx, after.event_type)
            self._effects.rule_changed(tx, message, await self._rules.bump_set(tx))
        details = {"version": after.live_version, "enabled": after.enabled, "changed": before != after}
        self._effects.audit(tx, call, message.name, details)
        return message

    async def _check_together(self, tx: UnitOfWork, event_type: str) -> None:
        """What cannot be compiled, or costs too much, together with the type's other rules must not go live.

        In another thread: with thousands of rules it takes seconds.
        """
        documents = await self._rules.in_force(tx, event_type)
        try:
            cost = await asyncio.to_thread(self._compiled_cost, documents)
        except Exception as error:
            text = "The rule cannot be compiled together with the others of its event type."
            raise FailedPrecondition("RULES_NOT_COMPILABLE", text) from error
        most = self._limits.max_type_cost
        if cost > most:
            raise FailedPrecondition(
                "RULE_COST_LIMIT",
                f"The rules for {event_type!r} would cost {cost} units per event; at most {most}.",
                metadata={"cost": str(cost), "limit": str(most)},
            )

    def _compiled_cost(self, documents: Sequence[tuple[VersionId, str]]) -> int:
        versions = []
        for version, document in documents:
            # What this release cannot read is not in force, and so costs nothing.
            with contextlib.suppress(NotCanonicalError):
                versions.append((version, load_rule(document.encode(), self._limits)))
        compile_rules(versions)
        return sum(rule_cost(rule) for _, rule in versions)

    async def _check_limit(self, tx: UnitOfWork, call: Call) -> None:
        limit = call.required_tenant().entitlements.get(_LIMIT)
        if limit is not None and await self._rules.count_enabled(tx) >= limit:
            raise FailedPrecondition(
                "RULE_LIMIT",
                f"The tenant may have {limit} rules; disable one, or ask for a higher entitlement {_LIMIT}.",
                metadata={"limit": str(limit), "entitlement": _LIMIT},
            )

    async def _check_all(self, tx: UnitOfWork, call: Call) -> None:
        """Rules that are off take no time, but room: no rule is ever deleted.

        Raises FailedPrecondition: RULE_NAME_LIMIT.
        """
        limit = call.required_tenant().entitlements.get(_LIMIT)
        if limit is not None and await self._rules.count(tx) >= limit * _ALL_PER_ON:
            most = limit * _ALL_PER_ON
            raise FailedPrecondition(
                "RULE_NAME_LIMIT",
                f"The tenant may have {most} rules, also off; publish over one, or ask for a higher"
                f" entitlement {_LIMIT}.",
                metadata={"limit": str(most), "entitlement": _LIMIT},
            )


def read_version(version: StoredVersion, limits: RuleLimits) -> Rule:
    """What a stored version says.

    Raises:
        FailedPrecondition: VERSION_UNREADABLE; a newer release wrote it, or a limit was lowered since.
    """
    try:
        return load_rule(version.document.encode(), limits)
    except NotCanonicalError as error:
        raise FailedPrecondition(
            "VERSION_UNREADABLE",
            f"This release cannot read version {version.version_id} of the rule {version.rule_id!r}"
            f" ({error.problems[0].code}); choose another version, publish the rule again, or ask a release"
            " that can.",
            metadata={"rule": version.rule_id, "version": version.version_id},
        ) from error


def found_rule(rule: StoredRule | None) -> StoredRule:
    """The rule. Raises NotFound: RULE_NOT_FOUND."""
    if rule is None:
        raise NotFound("RULE_NOT_FOUND", "There is no such rule; list them with ListRules.")
    return rule


def check_hashes(*given: tuple[str, str]) -> None:
    """Whether each (field, prefix) may begin a version's hash; else InvalidArgument: VERSION_INVALID."""
    text = "must be the version's hash or its first 8 or more lower-case hex digits"
    violations = [
        Violation(field, "VERSION_INVALID", text)
        for field, prefix in given
        if len(prefix) < _SHORTEST_HASH or not _HASH_DIGITS.issuperset(prefix)
    ]
    if violations:
        raise InvalidArgument(violations=violations)


async def find_version(
    tx: UnitOfWork, rules: Rules, rule_id: RuleName, prefix: str, field: str
) -> StoredVersion:
    """The one version of a rule whose hash begins with `prefix`.

    Raises:
        InvalidArgument: VERSION_INVALID, no hash of 8 to 64 digits.
        NotFound: VERSION_NOT_FOUND.
        FailedPrecondition: VERSION_AMBIGUOUS.
    """
    check_hashes((field, prefix))
    found = await rules.find_versions(tx, rule_id, prefix)
    if not found:
        raise NotFound("VERSION_NOT_FOUND", "The rule has no such version; see ListRuleVersions.")
    if len(found) > 1:
        raise FailedPrecondition("VERSION_AMBIGUOUS", "Several versions begin so; give more digits.")
    return found[0]
