"""The tables `rules`, `rule_versions` and, for its lock and its version, `rule_set`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from tlsy.rules_engine.domain.ast import RuleName, VersionId
from tlsy.rules_engine.ports import StoredRule, StoredVersion

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from asyncpg import Record

    from tlsy.tenancy.unit_of_work import UnitOfWork

#: Sorts behind every version that there can be.
_LAST: Final = (datetime(9999, 1, 1, tzinfo=UTC), "")


class PostgresRules:
    """See `tlsy.rules_engine.ports.Rules`."""

    def __init__(self, statements: Mapping[str, str]) -> None:
        self._sql = statements

    async def lock_set(self, tx: UnitOfWork) -> int:
        """See the port."""
        await tx.execute(self._sql["create_rule_set"], tx.tenant_id)
        return int(await tx.fetchval(self._sql["lock_rule_set"], tx.tenant_id))

    async def bump_set(self, tx: UnitOfWork) -> int:
        """See the port."""
        return int(await tx.fetchval(self._sql["bump_rule_set"], tx.tenant_id))

    async def get(self, tx: UnitOfWork, rule_id: RuleName) -> StoredRule | None:
        """See the port."""
        row = await tx.fetchrow(self._sql["get_rule"], tx.tenant_id, rule_id)
        return None if row is None else _rule(row)

    async def page(self, tx: UnitOfWork, after: str, limit: int) -> Sequence[StoredRule]:
        """See the port."""
        return [_rule(row) for row in await tx.fetch(self._sql["list_rules"], tx.tenant_id, after, limit)]

    async def count_enabled(self, tx: UnitOfWork) -> int:
        """See the port."""
        return int(await tx.fetchval(self._sql["count_enabled_rules"], tx.tenant_id))

    async def count(self, tx: UnitOfWork) -> int:
        """See the port."""
        return int(await tx.fetchval(self._sql["count_rules"], tx.tenant_id))

    async def in_force(self, tx: UnitOfWork, event_type: str) -> Sequence[tuple[VersionId, str]]:
        """See the port."""
        rows = await tx.fetch(self._sql["rules_in_force"], tx.tenant_id, event_type)
        return [(VersionId(row["version_id"]), row["document"]) for row in rows]

    async def save(self, tx: UnitOfWork, rule: StoredRule) -> None:
        """See the port."""
        await tx.execute(
            self._sql["save_rule"],
            tx.tenant_id,
            rule.rule_id,
            rule.display_name,
            rule.event_type,
            rule.enabled,
            rule.live_version,
            rule.previous_version,
            rule.created_at,
            rule.updated_at,
            rule.revision,
        )

    async def halt(
        self, tx: UnitOfWork, versions: Collection[VersionId], at: datetime, reason: str
    ) -> Sequence[StoredRule]:
        """See the port."""
        rows = await tx.fetch(self._sql["halt_rules"], tx.tenant_id, list(versions), at, reason)
        return [_rule(row) for row in rows]

    async def add_version(self, tx: UnitOfWork, version: StoredVersion) -> None:
        """See the port."""
        await tx.execute(
            self._sql["add_version"],
            tx.tenant_id,
            version.version_id,
            version.rule_id,
            version.document,
            version.author,
            version.created_at,
        )

    async def count_versions(self, tx: UnitOfWork, rule_id: RuleName) -> int:
        """See the port."""
        return int(await tx.fetchval(self._sql["count_versions"], tx.tenant_id, rule_id))

    async def find_versions(self, tx: UnitOfWork, rule_id: RuleName, prefix: str) -> Sequence[StoredVersion]:
        """See the port."""
        rows = await tx.fetch(self._sql["find_versions"], tx.tenant_id, rule_id, prefix)
        return [_version(row) for row in rows]

    async def page_versions(
        self, tx: UnitOfWork, rule_id: RuleName, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[StoredVersion]:
        """See the port."""
        place = after or _LAST
        rows = await tx.fetch(self._sql["list_versions"], tx.tenant_id, rule_id, *place, limit)
        return [_version(row) for row in rows]


def _rule(row: Record) -> StoredRule:
    previous = row["previous_version"]
    return StoredRule(
        rule_id=RuleName(row["rule_id"]),
        display_name=row["display_name"],
        event_type=row["event_type"],
        enabled=row["enabled"],
        live_version=VersionId(row["live_version"]),
        previous_version=None if previous is None else VersionId(previous),
        document=row["document"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        revision=row["revision"],
        halted_at=row["halted_at"],
        halt_reason=row["halt_reason"],
    )


def _version(row: Record) -> StoredVersion:
    return StoredVersion(
        rule_id=RuleName(row["rule_id"]),
        version_id=VersionId(row["version_id"]),
        document=row["document"],
        author=row["author"],
        created_at=row["created_at"],
    )
