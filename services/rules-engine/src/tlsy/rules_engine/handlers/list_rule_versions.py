"""Versions of a rule, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.rules_engine.handlers.changes import found_rule

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from tlsy.rpc.call import Call
    from tlsy.rules_engine.domain.ast import RuleName, VersionId
    from tlsy.rules_engine.ports import Rules, StoredVersion
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


class ListRuleVersions:
    """Reads, newest first."""

    def __init__(self, *, tenancy: Tenancy, rules: Rules) -> None:
        self._tenancy = tenancy
        self._rules = rules

    async def run(
        self, call: Call, rule_id: RuleName, after: tuple[datetime, str] | None, size: int
    ) -> tuple[Sequence[StoredVersion], VersionId, bool]:
        """At most `size` behind `after`, which version is live, and whether there are more.

        Raises:
            NotFound: RULE_NOT_FOUND.
        """

        async def read(tx: UnitOfWork) -> tuple[Sequence[StoredVersion], VersionId]:
            rule = found_rule(await self._rules.get(tx, rule_id))
            return await self._rules.page_versions(tx, rule_id, after, size + 1), rule.live_version

        found, live = await self._tenancy.run(call.required_tenant().tenant_id, read, write=False)
        return found[:size], live, len(found) > size
