"""The life of an incident: open, acknowledged, resolved, and open again; every step is in its timeline.

Pure: a transition takes the incident and returns the next one, or says why it may not happen.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NewType

from tlsy.rules_engine.domain.template import render

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlsy.rules_engine.domain.ast import Rule, RuleName, VersionId
    from tlsy.rules_engine.domain.events import Scalar
    from tlsy.rules_engine.domain.turn import GroupKey, Transition

IncidentId = NewType("IncidentId", str)
DedupKey = NewType("DedupKey", str)

MAX_TIMELINE: Final = 200
MAX_NOTE_CHARS: Final = 2_000


class IncidentState(StrEnum):
    """Where an incident is in its life."""

    OPEN = "OPEN"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    RESOLVED = "RESOLVED"


class EntryKind(StrEnum):
    """What a timeline entry records."""

    OPENED = "OPENED"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    RESOLVED = "RESOLVED"
    REOPENED = "REOPENED"


class Refusal(StrEnum):
    """Why a transition may not happen; stable."""

    ALREADY_ACKNOWLEDGED = "ALREADY_ACKNOWLEDGED"
    ALREADY_RESOLVED = "ALREADY_RESOLVED"
    NOT_RESOLVED = "NOT_RESOLVED"
    REOPEN_TOO_LATE = "REOPEN_TOO_LATE"
    NOTE_TOO_LONG = "NOTE_TOO_LONG"


@dataclass(frozen=True, slots=True)
class IllegalTransition:
    """A transition that was refused; the incident is unchanged."""

    reason: Refusal
    state: IncidentState


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One step: when (µs), by whom (`rule` or a principal), and why (a note, or the engine's reason)."""

    kind: EntryKind
    at_us: int
    actor: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One incident. Its version, and what it says, are of what opened it, or last opened it again.

    `entries_dropped` counts timeline entries beyond MAX_TIMELINE: the first is kept, the oldest others go.
    """

    id: IncidentId
    rule: RuleName
    version: VersionId
    dedup_key: DedupKey
    group: Mapping[str, str | None]
    severity: str
    summary: str
    operands: Mapping[str, Scalar | None]
    state: IncidentState
    opened_us: int
    last_seen_us: int
    acknowledged_by: str = ""
    resolved_us: int | None = None
    reopened: int = 0
    timeline: tuple[Entry, ...] = ()
    entries_dropped: int = 0


@dataclass(frozen=True, slots=True)
class ReopenPolicy:
    """A rule that fires again within `within_s` of the resolution opens the same incident, later another."""

    within_s: int = 300


def dedup_key(rule: Rule, group: GroupKey) -> DedupKey:
    """What two firings share if they are one incident: the rule's name and the values of its dedup fields.

    Not the version: a new version of a rule goes on with the open incidents of the old one.
    """
    values = dict(zip(rule.group_fields, group, strict=True))
    named = [rule.name, *([path, values[path]] for path in rule.incident.dedup_key)]
    text = json.dumps(named, ensure_ascii=False, separators=(",", ":"))
    return DedupKey(hashlib.sha256(text.encode()).hexdigest()[:32])


def open_incident(id_: IncidentId, rule: Rule, transition: Transition) -> Incident:
    """The incident that an `open` transition of `rule` makes when none with its dedup key can take it."""
    group = dict(zip(rule.group_fields, transition.group, strict=True))
    return Incident(
        id=id_,
        rule=rule.name,
        version=transition.version,
        dedup_key=dedup_key(rule, transition.group),
        group=MappingProxyType(group),
        severity=rule.incident.severity,
        summary=render(rule.incident.summary, {**group, **transition.operands}),
        operands=MappingProxyType(dict(transition.operands)),
        state=IncidentState.OPEN,
        opened_us=transition.at_us,
        last_seen_us=transition.at_us,
        timeline=(Entry(kind=EntryKind.OPENED, at_us=transition.at_us, actor="rule"),),
    )


def refresh(incident: Incident, at_us: int) -> Incident | IllegalTransition:
    """The rule fired again; acknowledged stays acknowledged, and the timeline does not grow."""
    if incident.state is IncidentState.RESOLVED:
        return IllegalTransition(Refusal.ALREADY_RESOLVED, incident.state)
    return replace(incident, last_seen_us=max(incident.last_seen_us, at_us))


def acknowledge(incident: Incident, actor: str, at_us: int, note: str = "") -> Incident | IllegalTransition:
    """Somebody took it on."""
    if incident.state is not IncidentState.OPEN:
        resolved = incident.state is IncidentState.RESOLVED
        reason = Refusal.ALREADY_RESOLVED if resolved else Refusal.ALREADY_ACKNOWLEDGED
        return IllegalTransition(reason, incident.state)
    if len(note) > MAX_NOTE_CHARS:
        return IllegalTransition(Refusal.NOTE_TOO_LONG, incident.state)
    entry = Entry(kind=EntryKind.ACKNOWLEDGED, at_us=at_us, actor=actor, note=note)
    return _entered(replace(incident, state=IncidentState.ACKNOWLEDGED, acknowledged_by=actor), entry)


def resolve(incident: Incident, actor: str, at_us: int, note: str = "") -> Incident | IllegalTransition:
    """It is over, not before it began: by its rule (`rule`, the note its reason) or by somebody."""
    if incident.state is IncidentState.RESOLVED:
        return IllegalTransition(Refusal.ALREADY_RESOLVED, incident.state)
    if len(note) > MAX_NOTE_CHARS:
        return IllegalTransition(Refusal.NOTE_TOO_LONG, incident.state)
    entry = Entry(kind=EntryKind.RESOLVED, at_us=at_us, actor=actor, note=note)
    return _entered(
        replace(incident, state=IncidentState.RESOLVED, resolved_us=max(at_us, incident.opened_us)), entry
    )


def superseded(incident: Incident, at_us: int) -> Incident:
    """Its rule's version is not in force any more, and nobody knows whether it still fires."""
    resolved = resolve(incident, "rule", at_us, "superseded")
    return incident if isinstance(resolved, IllegalTransition) else resolved


def reopen(
    incident: Incident, rule: Rule, transition: Transition, policy: ReopenPolicy
) -> Incident | IllegalTransition:
    """The rule fired again soon after: open, not acknowledged, and it says what is so this time."""
    if incident.resolved_us is None:
        return IllegalTransition(Refusal.NOT_RESOLVED, incident.state)
    if transition.at_us - incident.resolved_us > policy.within_s * 1_000_000:
        return IllegalTransition(Refusal.REOPEN_TOO_LATE, incident.state)
    entry = Entry(kind=EntryKind.REOPENED, at_us=transition.at_us, actor="rule")
    again = replace(
        open_incident(incident.id, rule, transition),
        opened_us=incident.opened_us,
        last_seen_us=max(incident.last_seen_us, transition.at_us),
        reopened=incident.reopened + 1,
        timeline=incident.timeline,
        entries_dropped=incident.entries_dropped,
    )
    return _entered(again, entry)


def unentered(incident: Incident, before: Incident) -> Incident:
    """`incident` with the timeline as it was: one of many steps that are counted and not told one by one."""
    return replace(incident, timeline=before.timeline, entries_dropped=before.entries_dropped + 1)


def entered_at_last(incident: Incident, steps: int) -> Incident:
    """With where it ended in its timeline, after so many steps that are not there."""
    resolved_us = incident.resolved_us
    entry = Entry(
        kind=EntryKind.REOPENED if resolved_us is None else EntryKind.RESOLVED,
        at_us=incident.last_seen_us if resolved_us is None else resolved_us,
        actor="rule",
        note=f"the last of {steps} changes in short order",
    )
    return _entered(replace(incident, entries_dropped=incident.entries_dropped - 1), entry)


def _entered(incident: Incident, entry: Entry) -> Incident:
    timeline = (*incident.timeline, entry)
    excess = max(len(timeline) - MAX_TIMELINE, 0)
    kept = timeline[:1] + timeline[1 + excess :]
    return replace(incident, timeline=kept, entries_dropped=incident.entries_dropped + excess)
