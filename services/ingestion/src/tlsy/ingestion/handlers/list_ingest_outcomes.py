"""What became of producers' records of which not every event was accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from tlsy.ingestion.ports import EventStore, RecordOutcome
    from tlsy.runtime.ids import TenantId
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


class ListIngestOutcomes:
    """Reads pages, newest first."""

    def __init__(self, *, tenancy: Tenancy, store: EventStore) -> None:
        self._tenancy = tenancy
        self._store = store

    async def run(
        self, tenant_id: TenantId, after: tuple[datetime, UUID] | None, limit: int
    ) -> tuple[Sequence[RecordOutcome], bool]:
        """A page of at most `limit` outcomes, and whether more follow."""

        async def read(tx: UnitOfWork) -> Sequence[RecordOutcome]:
            return await self._store.list_outcomes(tx, after, limit + 1)

        found = await self._tenancy.run(tenant_id, read, write=False)
        return found[:limit], len(found) > limit
