"""The table `rule_state`, and the stamp in `rule_set` that says which transaction wrote it last."""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from tlsy.rules_engine.domain.ast import VersionId
from tlsy.rules_engine.domain.rows import StateRow
from tlsy.rules_engine.ports import SetState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from uuid import UUID

    from tlsy.tenancy.unit_of_work import UnitOfWork

_HASH_BYTES: Final = 16
#: Rows that are converted before others get a turn: a ms or two.
_SLICE: Final = 2_000


class PostgresEngineStates:
    """See `tlsy.rules_engine.ports.EngineStates`."""

    def __init__(self, statements: Mapping[str, str]) -> None:
        self._lock = statements["lock_rule_set"]
        self._live = statements["live_versions"]
        self._documents = statements["read_documents"]
        self._load = statements["load_state"]
        self._forget = statements["forget_state"]
        self._exists = statements["state_exists"]
        self._save = statements["save_state"]

    async def enter(self, tx: UnitOfWork) -> SetState | None:
        """See the port."""
        row = await tx.fetchrow(self._lock, tx.tenant_id)
        return None if row is None else SetState(*row)

    async def live(self, tx: UnitOfWork) -> Sequence[tuple[VersionId, str]]:
        """See the port."""
        rows = await tx.fetch(self._live, tx.tenant_id)
        return [(VersionId(row["version_id"]), row["document"]) for row in rows]

    async def documents(
        self, tx: UnitOfWork, versions: Iterable[VersionId]
    ) -> Sequence[tuple[VersionId, str]]:
        """See the port."""
        rows = await tx.fetch(self._documents, tx.tenant_id, list(versions))
        return [(VersionId(row["version_id"]), row["document"]) for row in rows]

    async def load(self, tx: UnitOfWork) -> Sequence[StateRow]:
        """See the port."""
        found = await tx.fetch(self._load, tx.tenant_id)
        rows: list[StateRow] = []
        for start in range(0, len(found), _SLICE):
            rows += (StateRow(*row) for row in found[start : start + _SLICE])
            await asyncio.sleep(0)
        return rows

    async def forget(self, tx: UnitOfWork, versions: Collection[VersionId]) -> int:
        """See the port."""
        return int(await tx.fetchval(self._forget, tx.tenant_id, list(versions)))

    async def exists(self, tx: UnitOfWork) -> bool:
        """See the port."""
        return bool(await tx.fetchval(self._exists, tx.tenant_id))

    async def save(self, tx: UnitOfWork, rows: Sequence[StateRow], stamp: UUID) -> None:
        """See the port."""
        owners = [row.owner for row in rows]
        keys = [row.key for row in rows]
        hashes = [blake2b(key.encode(), digest_size=_HASH_BYTES).digest() for key in keys]
        payloads = [row.payload for row in rows]
        await tx.execute(self._save, tx.tenant_id, owners, hashes, keys, payloads, stamp)
