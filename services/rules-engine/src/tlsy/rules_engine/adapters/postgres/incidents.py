"""The table `incidents`."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tlsy.rules_engine.adapters.postgres.times import to_us
from tlsy.rules_engine.domain.ast import RuleName, VersionId
from tlsy.rules_engine.domain.incident import DedupKey, Entry, Incident, IncidentId, IncidentState
from tlsy.rules_engine.ports import StoredIncident

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from uuid import UUID

    from asyncpg import Record

    from tlsy.rules_engine.ports import IncidentFilter, Refreshed
    from tlsy.tenancy.unit_of_work import UnitOfWork

_timeline: Final = msgspec.json.Decoder(tuple[Entry, ...]).decode


class PostgresIncidents:
    """See `tlsy.rules_engine.ports.Incidents`."""

    def __init__(self, statements: Mapping[str, str]) -> None:
        self._sql = statements

    async def current(self, tx: UnitOfWork, keys: Iterable[DedupKey]) -> Mapping[DedupKey, StoredIncident]:
        """See the port."""
        rows = await tx.fetch(self._sql["current_incidents"], tx.tenant_id, sorted(keys))
        return {DedupKey(row["dedup_key"]): _incident(row) for row in rows}

    async def of_versions(
        self, tx: UnitOfWork, versions: Collection[VersionId], limit: int
    ) -> Sequence[StoredIncident]:
        """See the port."""
        rows = await tx.fetch(self._sql["incidents_of_versions"], tx.tenant_id, list(versions), limit)
        return [_incident(row) for row in rows]

    async def put(self, tx: UnitOfWork, incidents: Sequence[StoredIncident]) -> None:
        """See the port."""
        written = msgspec.json.encode([_columns(stored) for stored in incidents]).decode()
        await tx.execute(self._sql["put_incidents"], tx.tenant_id, written)

    async def refresh(self, tx: UnitOfWork, refreshed: Mapping[DedupKey, Refreshed]) -> None:
        """See the port."""
        keys = sorted(refreshed)
        times = [refreshed[key].times for key in keys]
        ats = [refreshed[key].at_us for key in keys]
        await tx.execute(self._sql["refresh_incidents"], tx.tenant_id, keys, times, ats)

    async def take_clears(self, tx: UnitOfWork) -> Sequence[tuple[RuleName, DedupKey]]:
        """See the port."""
        rows = await tx.fetch(self._sql["take_clears"], tx.tenant_id)
        return [(RuleName(row["rule_id"]), DedupKey(row["dedup_key"])) for row in rows]

    async def ask_clear(self, tx: UnitOfWork) -> None:
        """See the port."""
        await tx.execute(self._sql["ask_clear"], tx.tenant_id)

    async def get(self, tx: UnitOfWork, incident_id: UUID) -> StoredIncident | None:
        """See the port."""
        row = await tx.fetchrow(self._sql["get_incident"], tx.tenant_id, incident_id)
        return None if row is None else _incident(row)

    async def lock(self, tx: UnitOfWork, incident_id: UUID) -> StoredIncident | None:
        """See the port."""
        row = await tx.fetchrow(self._sql["lock_incident"], tx.tenant_id, incident_id)
        return None if row is None else _incident(row)

    async def page(
        self, tx: UnitOfWork, wanted: IncidentFilter, after: UUID, limit: int
    ) -> Sequence[StoredIncident]:
        """See the port."""
        place = (tx.tenant_id, after, wanted.rule_id, wanted.site, limit)
        if wanted.states:
            rows = await tx.fetch(self._sql["list_incidents_in"], *place, sorted(set(wanted.states)))
        else:
            rows = await tx.fetch(self._sql["list_incidents"], *place)
        return [_incident(row) for row in rows]


def _columns(stored: StoredIncident) -> dict[str, Any]:
    incident = stored.incident
    return {
        "incident_id": incident.id,
        "rule_id": incident.rule,
        "version_id": incident.version,
        "dedup_key": incident.dedup_key,
        "state": incident.state.value,
        "severity": incident.severity,
        "summary": incident.summary,
        "site": str(incident.group.get("site") or incident.operands.get("site") or ""),
        "group_values": dict(incident.group),
        "operands": dict(incident.operands),
        "opened_us": incident.opened_us,
        "last_seen_us": incident.last_seen_us,
        "acknowledged_by": incident.acknowledged_by,
        "resolved_us": incident.resolved_us,
        "reopened": incident.reopened,
        "occurrences": stored.occurrences,
        "firing_groups": stored.firing_groups,
        "clear_pending": stored.clear_pending,
        "timeline": incident.timeline,
        "entries_dropped": incident.entries_dropped,
        "revision": stored.revision,
    }


def _incident(row: Record) -> StoredIncident:
    resolved_at = row["resolved_at"]
    incident = Incident(
        id=IncidentId(str(row["incident_id"])),
        rule=RuleName(row["rule_id"]),
        version=VersionId(row["version_id"]),
        dedup_key=DedupKey(row["dedup_key"]),
        group=MappingProxyType(msgspec.json.decode(row["group_values"])),
        severity=row["severity"],
        summary=row["summary"],
        operands=MappingProxyType(msgspec.json.decode(row["operands"])),
        state=IncidentState(row["state"]),
        opened_us=to_us(row["opened_at"]),
        last_seen_us=to_us(row["last_seen_at"]),
        acknowledged_by=row["acknowledged_by"],
        resolved_us=None if resolved_at is None else to_us(resolved_at),
        reopened=row["reopened"],
        timeline=_timeline(row["timeline"]),
        entries_dropped=row["entries_dropped"],
    )
    return StoredIncident(
        incident=incident,
        occurrences=row["occurrences"],
        firing_groups=row["firing_groups"],
        clear_pending=row["clear_pending"],
        revision=row["revision"],
    )
