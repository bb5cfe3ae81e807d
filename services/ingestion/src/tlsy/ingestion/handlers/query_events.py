"""Events by time, source, type and labels; a page at a time, newest first."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from tlsy.rpc.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlsy.ingestion.ports import EventFilter, EventPlace, EventStore, StoredEvent
    from tlsy.runtime.ids import TenantId
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork

#: A query may span so much time: it reads every partition in between.
MAX_SPAN: Final = timedelta(days=400)


class QueryEvents:
    """Reads pages; sees what the tenant's own transactions see."""

    def __init__(self, *, tenancy: Tenancy, store: EventStore) -> None:
        self._tenancy = tenancy
        self._store = store

    async def run(
        self, tenant_id: TenantId, wanted: EventFilter, after: EventPlace | None, limit: int
    ) -> tuple[Sequence[StoredEvent], bool]:
        """A page of at most `limit` events, and whether more follow.

        Raises:
            InvalidArgument: RANGE_EMPTY, RANGE_TOO_LONG (than MAX_SPAN), FILTER_INVALID (no text has NUL).
        """
        violations = _violations(wanted)
        if violations:
            raise InvalidArgument(violations=violations)

        async def read(tx: UnitOfWork) -> Sequence[StoredEvent]:
            return await self._store.query(tx, wanted, after, limit + 1)

        found = await self._tenancy.run(tenant_id, read, write=False)
        return found[:limit], len(found) > limit


def _violations(wanted: EventFilter) -> list[Violation]:
    found = []
    if not wanted.start < wanted.end:
        found.append(Violation("end_time", "RANGE_EMPTY", "must be after start_time"))
    elif wanted.end - wanted.start > MAX_SPAN:
        text = f"must be at most {MAX_SPAN.days} days after start_time"
        found.append(Violation("end_time", "RANGE_TOO_LONG", text))
    labels = "".join(f"{key}{text}" for key, text in wanted.labels.items())
    for field, text in (("source", wanted.source), ("type", wanted.type), ("labels", labels)):
        if "\0" in text:
            found.append(Violation(field, "FILTER_INVALID", "must be without NUL"))
    return found
