"""What changed in meaning between two versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.rules_engine.domain.canonical import difference
from tlsy.rules_engine.handlers.changes import check_hashes, find_version, read_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlsy.rpc.call import Call
    from tlsy.rules_engine.domain.ast import Rule, RuleName
    from tlsy.rules_engine.domain.canonical import Change
    from tlsy.rules_engine.domain.problems import RuleLimits
    from tlsy.rules_engine.ports import Rules
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


class DiffRuleVersions:
    """Reads; the versions may be of two rules."""

    def __init__(self, *, tenancy: Tenancy, rules: Rules, limits: RuleLimits) -> None:
        self._tenancy = tenancy
        self._rules = rules
        self._limits = limits

    async def run(self, call: Call, old: tuple[RuleName, str], new: tuple[RuleName, str]) -> Sequence[Change]:
        """By pointer; a version is given by its rule and its hash or the beginning of it.

        Raises:
            NotFound: VERSION_NOT_FOUND.
            FailedPrecondition: VERSION_AMBIGUOUS, VERSION_UNREADABLE.
            InvalidArgument: VERSION_INVALID.
        """
        check_hashes(("old_version", old[1]), ("new_version", new[1]))

        async def read(tx: UnitOfWork) -> tuple[Rule, Rule]:
            return (
                await self._rule(tx, *old, "old_version"),
                await self._rule(tx, *new, "new_version"),
            )

        return difference(*await self._tenancy.run(call.required_tenant().tenant_id, read, write=False))

    async def _rule(self, tx: UnitOfWork, rule_id: RuleName, prefix: str, field: str) -> Rule:
        return read_version(await find_version(tx, self._rules, rule_id, prefix, field), self._limits)
