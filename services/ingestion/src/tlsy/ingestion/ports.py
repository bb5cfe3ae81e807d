"""What the handlers need: a store for events, and somebody who publishes after the commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, datetime
    from uuid import UUID

    from tlsy.contracts.cloudevents import CloudEvent
    from tlsy.ingestion.domain.events import Problem, Row
    from tlsy.tenancy.context import TenantContext
    from tlsy.tenancy.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What became of the events of one batch."""

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    deferred: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthCount:
    """Events stored this month by all replicas, and when the quota was passed, if it was."""

    accepted: int
    passed_at: datetime | None


class StoredEvent(NamedTuple):
    """A row of the events table as it is read."""

    ts: datetime
    event_key: bytes
    source: str
    event_id: str
    type: str
    subject: str
    site: str
    severity: int
    value: float | None
    labels: str
    data: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events are asked for: start inclusive, end exclusive; empty texts and labels do not filter."""

    start: datetime
    end: datetime
    source: str
    type: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EventPlace:
    """Of the last event of a page; the next page begins behind it."""

    ts: datetime
    event_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOutcome:
    """What became of one record of a producer."""

    outcome_id: UUID
    record_time: datetime
    partition: int
    offset: int
    tally: Tally
    problems: Sequence[Problem]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrincipalMinute:
    """What a principal sent in a minute, as far as the audit log has not been told of it."""

    minute: datetime
    principal: str
    calls: int
    tally: Tally


class RowsRefused(Exception):  # noqa: N818 - read as a fact
    """The store cannot hold some of the rows, whatever is tried; the transaction is lost."""


class EventStore(Protocol):
    """Events, counts and outcomes of the tenant whose transaction is given."""

    async def insert(self, tx: UnitOfWork, rows: Sequence[Row]) -> Sequence[int]:
        """Stores rows sorted by key; the places of those that were there before. Raises RowsRefused."""
        ...

    async def known(self, tx: UnitOfWork, rows: Sequence[Row]) -> Sequence[int]:
        """The places of rows that are stored already."""
        ...

    async def refused(self, tx: UnitOfWork, rows: Sequence[Row]) -> Sequence[int]:
        """The places of rows that `insert` refuses."""
        ...

    async def add_counts(
        self, tx: UnitOfWork, principal: str, tally: Tally, now: datetime, batches: int = 1
    ) -> None:
        """Counts events, of so many batches, for the month and for the principal's minute."""
        ...

    async def read_month(self, tx: UnitOfWork, month: date, quota: int) -> MonthCount:
        """The month's count, and when a quota of so many events was passed."""
        ...

    async def mark_quota_passed(self, tx: UnitOfWork, month: date, quota: int, passed_at: datetime) -> None:
        """Notes the first time that a quota was passed in a month; later ones change nothing."""
        ...

    async def query(
        self, tx: UnitOfWork, wanted: EventFilter, after: EventPlace | None, limit: int
    ) -> Sequence[StoredEvent]:
        """A page of events, newest first."""
        ...

    async def tell_minutes(self, tx: UnitOfWork, before: datetime, limit: int) -> Sequence[PrincipalMinute]:
        """Takes minutes that ended before `before` and that the audit log does not know wholly."""
        ...

    async def add_outcome(self, tx: UnitOfWork, outcome: RecordOutcome) -> None:
        """Keeps what became of a producer's record."""
        ...

    async def list_outcomes(
        self, tx: UnitOfWork, after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[RecordOutcome]:
        """A page of outcomes, newest first."""
        ...


class BatchObserver(Protocol):
    """Counts for whoever runs the service; knows no tenants."""

    def ingested(self, tally: Tally, problems: Sequence[Problem], *, late: int, retimed: int) -> None:
        """A batch was answered; `late` and `retimed` are of the events that were in order."""
        ...

    def passed_quota(self, stage: str) -> None:
        """A batch was taken in grace, or refused in part or whole because the quota is exhausted."""
        ...


class AfterCommit(Protocol):
    """Publishes what was just committed, from memory. What it drops or a crash loses, the sweep finds."""

    def __call__(self, tenant: TenantContext, events: Sequence[CloudEvent]) -> None:
        """Takes them at once; never waits, never raises."""
        ...
