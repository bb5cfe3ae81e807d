"""What handlers answer as messages, and places of pages; rules and incidents are in handlers/messages.py."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb
from tlsy.rpc.errors import InvalidArgument, Violation
from tlsy.rules_engine.ports import IncidentFilter
from tlsy.rules_engine.rpc import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlsy.rules_engine.domain.canonical import Change
    from tlsy.rules_engine.handlers.validate_rule import Judged
    from tlsy.rules_engine.ports import ObservedField, StoredVersion

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
_STATES: Final[Mapping[int, str]] = {
    pb.INCIDENT_STATE_OPEN: "OPEN",
    pb.INCIDENT_STATE_ACKNOWLEDGED: "ACKNOWLEDGED",
    pb.INCIDENT_STATE_RESOLVED: "RESOLVED",
}
_TYPES: Final[Mapping[str, str]] = {"boolean": "bool"}


def to_judged(judged: Judged) -> pb.ValidateRuleResponse:
    """The verdict on a document."""
    return pb.ValidateRuleResponse(
        problems=[
            pb.RuleProblem(
                pointer=problem.pointer, code=problem.code.value, message=problem.message, hint=problem.hint
            )
            for problem in judged.problems
        ],
        version_id=judged.version_id or "",
        cost=judged.cost,
    )


def to_change(change: Change) -> pb.RuleChange:
    """One difference; a side that is not there is absent."""
    return pb.RuleChange(
        pointer=change.pointer,
        old_value=None if change.kind == "added" else json.dumps(change.old, ensure_ascii=False),
        new_value=None if change.kind == "removed" else json.dumps(change.new, ensure_ascii=False),
    )


def to_field(field: ObservedField) -> pb.ObservedField:
    """One field."""
    message = pb.ObservedField(
        event_type=field.event_type,
        path=field.path,
        types=sorted(_TYPES.get(kind, kind) for kind in field.types),
    )
    message.last_seen_time.FromMicroseconds(field.last_seen_us)
    return message


def version_cursor(version: StoredVersion) -> tuple[int, str]:
    """Where the page behind this version begins."""
    return (version.created_at - _EPOCH) // _US, version.version_id


def version_place(time_us: int, version_id: str) -> tuple[datetime, str]:
    """The reverse of `version_cursor`. Raises OverflowError: there can be no such time."""
    return _EPOCH + time_us * _US, version_id


def without_nul(text: str, field: str, reason: str = "FILTER_INVALID") -> str:
    """A text to look for or to keep. Raises InvalidArgument: `reason` (no text has NUL)."""
    if "\0" in text:
        raise InvalidArgument(violations=[Violation(field, reason, "must be without NUL")])
    return text


def to_filter(request: pb.ListIncidentsRequest) -> IncidentFilter:
    """What is asked for. Raises InvalidArgument: STATE_UNKNOWN, FILTER_INVALID."""
    unknown = [state for state in request.states if state not in _STATES]
    if unknown:
        text = "must be OPEN, ACKNOWLEDGED or RESOLVED"
        raise InvalidArgument(violations=[Violation("states", "STATE_UNKNOWN", text)])
    return IncidentFilter(
        states=[_STATES[state] for state in request.states],
        rule_id=names.rule_id(request.rule, "rule") if request.rule else "",
        site=without_nul(request.site, "site"),
    )
