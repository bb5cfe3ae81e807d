"""Events, counts and outcomes in the tenant's placement."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg
import msgspec

from tlsy.ingestion.domain.events import Problem, columns
from tlsy.ingestion.domain.meter import month_start
from tlsy.ingestion.ports import (
    MonthCount,
    PrincipalMinute,
    RecordOutcome,
    RowsRefused,
    StoredEvent,
    Tally,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from tlsy.ingestion.domain.events import Row
    from tlsy.ingestion.ports import EventFilter, EventPlace
    from tlsy.tenancy.unit_of_work import UnitOfWork

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
#: Sorts behind every place that there can be.
_LAST_TIME: Final = datetime(9999, 1, 1, tzinfo=UTC)
_LAST_KEY: Final = b"\xff" * 16
_LAST_ID: Final = UUID(int=2**128 - 1)


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


class PostgresEventStore:
    """See `tlsy.ingestion.ports.EventStore`.

    `shard` spreads the counters of a tenant over rows: replicas and connections should have different ones.
    """

    def __init__(self, shard: int) -> None:
        self._shard = shard
        self._insert = _read("insert_events.sql")
        self._select_known = _read("select_known.sql")
        self._select_refused = _read("select_refused.sql")
        self._add_counts = _read("add_counts.sql")
        self._read_month = _read("read_month.sql")
        self._mark_quota_passed = _read("mark_quota_passed.sql")
        self._tell_minutes = _read("tell_minutes.sql")
        self._insert_outcome = _read("insert_outcome.sql")
        self._list_outcomes = _read("list_outcomes.sql")
        self._list_events = _read("list_events.sql")
        self._list_of_type = _read("list_events_of_type.sql")
        self._list_of_source = _read("list_events_of_source.sql")

    async def insert(self, tx: UnitOfWork, rows: Sequence[Row]) -> Sequence[int]:
        """See the port."""
        try:
            answer = await tx.fetchrow(self._insert, tx.tenant_id, *columns(rows))
        except asyncpg.DataError as error:
            raise RowsRefused(str(error)) from error
        if answer is None:
            raise RuntimeError("an aggregate answered no row")
        if answer["stored"] == len(rows):
            return ()
        new = {
            ((ts - _EPOCH) // _US, key)
            for ts, key in zip(answer["stored_times"] or (), answer["stored_keys"] or (), strict=True)
        }
        return [place for place, row in enumerate(rows) if row[:2] not in new]

    async def known(self, tx: UnitOfWork, rows: Sequence[Row]) -> Sequence[int]:
        """See the port."""
        times, keys = [row[0] for row in rows], [row[1] for row in rows]
        return [row["place"] for row in await tx.fetch(self._select_known, times, keys)]

    async def refused(self, tx: UnitOfWork, rows: Sequence[Row]) -> Sequence[int]:
        """See the port."""
        labels, data = [row[10] for row in rows], [row[11] for row in rows]
        return [row["place"] for row in await tx.fetch(self._select_refused, labels, data)]

    async def add_counts(
        self, tx: UnitOfWork, principal: str, tally: Tally, now: datetime, batches: int = 1
    ) -> None:
        """See the port."""
        await tx.execute(
            self._add_counts,
            tx.tenant_id,
            month_start(now),
            self._shard,
            now.replace(second=0, microsecond=0),
            principal,
            tally.accepted,
            tally.duplicates,
            tally.rejected,
            tally.deferred,
            batches,
        )

    async def read_month(self, tx: UnitOfWork, month: date, quota: int) -> MonthCount:
        """See the port."""
        row = await tx.fetchrow(self._read_month, month, quota)
        if row is None:
            raise RuntimeError("an aggregate answered no row")
        return MonthCount(accepted=row["accepted"], passed_at=row["passed_at"])

    async def mark_quota_passed(self, tx: UnitOfWork, month: date, quota: int, passed_at: datetime) -> None:
        """See the port."""
        await tx.execute(self._mark_quota_passed, tx.tenant_id, month, quota, passed_at)

    async def query(
        self, tx: UnitOfWork, wanted: EventFilter, after: EventPlace | None, limit: int
    ) -> Sequence[StoredEvent]:
        """See the port."""
        ts, key = (after.ts, after.event_key) if after else (_LAST_TIME, _LAST_KEY)
        labels = msgspec.json.encode(dict(wanted.labels)).decode() if wanted.labels else None
        args: tuple[object, ...] = (wanted.start, wanted.end, ts, key, labels, limit)
        if wanted.source:
            rows = await tx.fetch(self._list_of_source, *args, wanted.source, wanted.type)
        elif wanted.type:
            rows = await tx.fetch(self._list_of_type, *args, wanted.type)
        else:
            rows = await tx.fetch(self._list_events, *args)
        return [StoredEvent(*row) for row in rows]

    async def tell_minutes(self, tx: UnitOfWork, before: datetime, limit: int) -> Sequence[PrincipalMinute]:
        """See the port."""
        return [
            PrincipalMinute(
                minute=row["minute"],
                principal=row["principal"],
                calls=row["calls"],
                tally=Tally(
                    accepted=row["accepted"],
                    duplicates=row["duplicates"],
                    rejected=row["rejected"],
                    deferred=row["deferred"],
                ),
            )
            for row in await tx.fetch(self._tell_minutes, before, limit)
        ]

    async def add_outcome(self, tx: UnitOfWork, outcome: RecordOutcome) -> None:
        """See the port."""
        await tx.execute(
            self._insert_outcome,
            tx.tenant_id,
            outcome.record_time,
            outcome.outcome_id,
            outcome.partition,
            outcome.offset,
            outcome.tally.accepted,
            outcome.tally.duplicates,
            outcome.tally.rejected,
            msgspec.json.encode([asdict(problem) for problem in outcome.problems]).decode(),
        )

    async def list_outcomes(
        self, tx: UnitOfWork, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[RecordOutcome]:
        """See the port."""
        rows = await tx.fetch(self._list_outcomes, *(after or (_LAST_TIME, _LAST_ID)), limit)
        return [
            RecordOutcome(
                outcome_id=row["outcome_id"],
                record_time=row["record_time"],
                partition=row["partition"],
                offset=row["record_offset"],
                tally=Tally(accepted=row["accepted"], duplicates=row["duplicates"], rejected=row["rejected"]),
                problems=msgspec.json.decode(row["rejections"], type=list[Problem]),
            )
            for row in rows
        ]
