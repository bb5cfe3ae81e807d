"""What the handlers need of a database. A `tx` has entered the tenant whose rows are meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from tlsy.rules_engine.domain.ast import RuleName, VersionId
    from tlsy.rules_engine.domain.events import ValueType
    from tlsy.rules_engine.domain.incident import DedupKey, Incident
    from tlsy.rules_engine.domain.rows import StateRow
    from tlsy.tenancy.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRule:
    """A rule and its live version; `revision` grows with every change of it.

    One that is halted is not in force, though it is on: judging it failed.
    """

    rule_id: RuleName
    display_name: str
    event_type: str
    enabled: bool
    live_version: VersionId
    previous_version: VersionId | None
    document: str
    created_at: datetime
    updated_at: datetime
    revision: int
    halted_at: datetime | None = None
    halt_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVersion:
    """A version of a rule; it never changes."""

    rule_id: RuleName
    version_id: VersionId
    document: str
    author: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredIncident:
    """An incident, how often its rule fired for it, and how many groups do so now."""

    incident: Incident
    occurrences: int
    firing_groups: int
    clear_pending: bool
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentFilter:
    """Which incidents are asked for; empty texts and no states do not filter."""

    states: Sequence[str]
    rule_id: str
    site: str


class SetState(NamedTuple):
    """The row of a tenant's rule set; see the table."""

    version: int
    stamp: UUID
    clears: int


class Refreshed(NamedTuple):
    """A rule fired again, `times` times, last at `at_us`, for the incident that is not resolved."""

    times: int
    at_us: int


class ObservedField(NamedTuple):
    """A field that events of a type have had."""

    event_type: str
    path: str
    types: frozenset[ValueType]
    last_seen_us: int


class Rules(Protocol):
    """Rules and their versions."""

    async def lock_set(self, tx: UnitOfWork) -> int:
        """The rule set's version; nobody else changes rules or evaluates before this transaction ends."""
        ...

    async def bump_set(self, tx: UnitOfWork) -> int:
        """The rule set's next version."""
        ...

    async def get(self, tx: UnitOfWork, rule_id: RuleName) -> StoredRule | None:
        """A rule."""
        ...

    async def page(self, tx: UnitOfWork, after: str, limit: int) -> Sequence[StoredRule]:
        """Rules by id."""
        ...

    async def count_enabled(self, tx: UnitOfWork) -> int:
        """How many rules are on."""
        ...

    async def count(self, tx: UnitOfWork) -> int:
        """How many rules there are."""
        ...

    async def in_force(self, tx: UnitOfWork, event_type: str) -> Sequence[tuple[VersionId, str]]:
        """Live versions, with their documents, of the rules of a type that are on and not halted."""
        ...

    async def save(self, tx: UnitOfWork, rule: StoredRule) -> None:
        """Inserts or replaces the rule; not its versions."""
        ...

    async def halt(
        self, tx: UnitOfWork, versions: Collection[VersionId], at: datetime, reason: str
    ) -> Sequence[StoredRule]:
        """Takes rules with these live versions out of force until they change; those that were in force."""
        ...

    async def add_version(self, tx: UnitOfWork, version: StoredVersion) -> None:
        """Keeps a version; one that is there stays as it is."""
        ...

    async def count_versions(self, tx: UnitOfWork, rule_id: RuleName) -> int:
        """How many versions a rule has."""
        ...

    async def find_versions(self, tx: UnitOfWork, rule_id: RuleName, prefix: str) -> Sequence[StoredVersion]:
        """Versions of a rule whose id begins so; two at most."""
        ...

    async def page_versions(
        self, tx: UnitOfWork, rule_id: RuleName, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[StoredVersion]:
        """Versions of a rule, newest first."""
        ...


class EngineStates(Protocol):
    """What an engine in memory is made of, and where it goes."""

    async def enter(self, tx: UnitOfWork) -> SetState | None:
        """Locks the rule set until the transaction ends; None for a tenant that never had a rule."""
        ...

    async def live(self, tx: UnitOfWork) -> Sequence[tuple[VersionId, str]]:
        """Live versions of the rules that are on, with their documents."""
        ...

    async def documents(
        self, tx: UnitOfWork, versions: Iterable[VersionId]
    ) -> Sequence[tuple[VersionId, str]]:
        """These versions, live or not."""
        ...

    async def load(self, tx: UnitOfWork) -> Sequence[StateRow]:
        """All rows."""
        ...

    async def forget(self, tx: UnitOfWork, versions: Collection[VersionId]) -> int:
        """Deletes the rows of these versions; how many there were."""
        ...

    async def exists(self, tx: UnitOfWork) -> bool:
        """Whether there is any row."""
        ...

    async def save(self, tx: UnitOfWork, rows: Sequence[StateRow], stamp: UUID) -> None:
        """Writes and deletes rows, stamps the rule set, and says that the engine knows all resolutions."""
        ...


class Incidents(Protocol):
    """Incidents."""

    async def current(self, tx: UnitOfWork, keys: Iterable[DedupKey]) -> Mapping[DedupKey, StoredIncident]:
        """Per key the one that is not resolved, else the newest; locked."""
        ...

    async def of_versions(
        self, tx: UnitOfWork, versions: Collection[VersionId], limit: int
    ) -> Sequence[StoredIncident]:
        """Some of those that these versions opened and that are not resolved; locked."""
        ...

    async def put(self, tx: UnitOfWork, incidents: Sequence[StoredIncident]) -> None:
        """Inserts or replaces, in this order."""
        ...

    async def refresh(self, tx: UnitOfWork, refreshed: Mapping[DedupKey, Refreshed]) -> None:
        """Counts firings of incidents that are not resolved; revisions stay."""
        ...

    async def take_clears(self, tx: UnitOfWork) -> Sequence[tuple[RuleName, DedupKey]]:
        """Those that operators resolved since the last time."""
        ...

    async def ask_clear(self, tx: UnitOfWork) -> None:
        """Has the next evaluation take the clears."""
        ...

    async def get(self, tx: UnitOfWork, incident_id: UUID) -> StoredIncident | None:
        """An incident."""
        ...

    async def lock(self, tx: UnitOfWork, incident_id: UUID) -> StoredIncident | None:
        """An incident that nobody else changes before this transaction ends."""
        ...

    async def page(
        self, tx: UnitOfWork, wanted: IncidentFilter, after: UUID, limit: int
    ) -> Sequence[StoredIncident]:
        """Incidents with ids below `after`, newest first."""
        ...


class ObservedFields(Protocol):
    """The fields that a tenant's events have had."""

    async def load(self, tx: UnitOfWork, event_type: str = "") -> Sequence[ObservedField]:
        """Of one type, or of all; by type and path."""
        ...

    async def save(
        self, tx: UnitOfWork, fields: Sequence[ObservedField], gone: Sequence[tuple[str, str]]
    ) -> None:
        """Inserts or replaces `fields`; deletes those with these types and paths."""
        ...


class Backlog(Protocol):
    """How far the log is applied."""

    def applied_until_us(self, partition: int, key: bytes) -> int | None:
        """Every older record of the partition with this key was applied; None: every one there is."""
        ...

    async def parked(self, partition: int) -> Collection[UUID]:
        """Tenants with records of the partition that have to wait for their database."""
        ...
