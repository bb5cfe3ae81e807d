"""Rules and incidents as messages: the same in answers and in events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb
from tlsy.rpc.etags import etag_of
from tlsy.rpc.resource_names import NamePattern
from tlsy.rules_engine.domain.incident import EntryKind, IncidentState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from tlsy.rules_engine.domain.incident import Entry
    from tlsy.rules_engine.ports import StoredIncident, StoredRule, StoredVersion

RULE: Final = NamePattern("tenants/{tenant}/rules/{id}")
VERSION: Final = NamePattern("tenants/{tenant}/rules/{id}/versions/{hash}")
INCIDENT: Final = NamePattern("tenants/{tenant}/incidents/{id}")

_STATES: Final[Mapping[IncidentState, pb.IncidentState.ValueType]] = {
    IncidentState.OPEN: pb.INCIDENT_STATE_OPEN,
    IncidentState.ACKNOWLEDGED: pb.INCIDENT_STATE_ACKNOWLEDGED,
    IncidentState.RESOLVED: pb.INCIDENT_STATE_RESOLVED,
}


def rule_etag(tenant_id: UUID, rule: StoredRule) -> str:
    """Of the rule as it is."""
    return etag_of(f"{tenant_id}/{rule.rule_id}", rule.revision)


def incident_etag(stored: StoredIncident) -> str:
    """Of the incident as it is; that its rule fires again does not change it."""
    return etag_of(stored.incident.id, stored.revision)


def to_rule(rule: StoredRule, slug: str, tenant_id: UUID) -> pb.Rule:
    """With the live version's document."""
    message = pb.Rule(
        name=RULE.format(tenant=slug, id=rule.rule_id),
        display_name=rule.display_name,
        enabled=rule.enabled,
        live_version=VERSION.format(tenant=slug, id=rule.rule_id, hash=rule.live_version),
        document=rule.document,
        etag=rule_etag(tenant_id, rule),
        event_type=rule.event_type,
    )
    message.create_time.FromDatetime(rule.created_at)
    message.update_time.FromDatetime(rule.updated_at)
    if rule.halted_at is not None:
        message.halt_reason = rule.halt_reason
        message.halt_time.FromDatetime(rule.halted_at)
    return message


def to_version(version: StoredVersion, slug: str, *, live: bool) -> pb.RuleVersion:
    """One version."""
    message = pb.RuleVersion(
        name=VERSION.format(tenant=slug, id=version.rule_id, hash=version.version_id),
        document=version.document,
        author=version.author,
        live=live,
    )
    message.create_time.FromDatetime(version.created_at)
    return message


def to_incident(stored: StoredIncident, slug: str, *, timeline: bool = False) -> pb.Incident:
    """The timeline only if asked for."""
    incident = stored.incident
    message = pb.Incident(
        name=INCIDENT.format(tenant=slug, id=incident.id),
        state=_STATES[incident.state],
        severity=incident.severity,
        summary=incident.summary,
        rule=RULE.format(tenant=slug, id=incident.rule),
        rule_version=VERSION.format(tenant=slug, id=incident.rule, hash=incident.version),
        dedup_key=incident.dedup_key,
        site=_dimension(stored, "site"),
        subject=_dimension(stored, "subject"),
        acknowledged_by=incident.acknowledged_by,
        occurrence_count=stored.occurrences,
        etag=incident_etag(stored),
    )
    message.values.update({**incident.group, **incident.operands})
    message.open_time.FromMicroseconds(incident.opened_us)
    message.last_occurrence_time.FromMicroseconds(incident.last_seen_us)
    if incident.acknowledged_by:
        message.acknowledge_time.FromMicroseconds(_last(stored, EntryKind.ACKNOWLEDGED).at_us)
    if incident.resolved_us is not None:
        message.resolve_time.FromMicroseconds(incident.resolved_us)
        message.resolved_by = _last(stored, EntryKind.RESOLVED).actor
    if timeline:
        message.timeline.extend(_entry(entry) for entry in incident.timeline)
    return message


def _dimension(stored: StoredIncident, name: str) -> str:
    return str(stored.incident.group.get(name) or stored.incident.operands.get(name) or "")


def _last(stored: StoredIncident, kind: EntryKind) -> Entry:
    return next(entry for entry in reversed(stored.incident.timeline) if entry.kind is kind)


def _entry(entry: Entry) -> pb.TimelineEntry:
    message = pb.TimelineEntry(kind=entry.kind.value.lower(), principal=entry.actor, note=entry.note)
    message.time.FromMicroseconds(entry.at_us)
    return message
