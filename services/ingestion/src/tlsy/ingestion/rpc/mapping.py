"""Proto to handler input and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, cast
from uuid import UUID

import msgspec
from google.protobuf.message import DecodeError

from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
from tlsy.contracts.ingestion.v1.encoded_pb2 import EncodedRequest
from tlsy.ingestion.domain.unreadable import unreadable_from
from tlsy.ingestion.ports import EventFilter, EventPlace
from tlsy.rpc.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import date

    from tlsy.ingestion.domain.events import Problem
    from tlsy.ingestion.domain.limits import Quota
    from tlsy.ingestion.handlers.ingest_events import Ingested
    from tlsy.ingestion.ports import MonthCount, RecordOutcome, StoredEvent

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
_labels: Final = msgspec.json.Decoder(dict[str, str]).decode


def read_request(raw: bytes) -> EncodedRequest:
    """A batch, its events as they are encoded. Raises InvalidArgument: REQUEST_UNREADABLE, and where."""
    try:
        return EncodedRequest.FromString(raw)
    except DecodeError:
        reason, place = "REQUEST_UNREADABLE", unreadable_from(raw, EncodedRequest.EVENTS_FIELD_NUMBER)
        text = "the request cannot be read from here on" if place else "must be UTF-8"
        raise InvalidArgument(reason, violations=[Violation(place or "parent", reason, text)]) from None


def to_response(ingested: Ingested) -> pb.IngestEventsResponse:
    """The answer to a batch."""
    response = pb.IngestEventsResponse(
        # The domain's numbers are the proto's; converting each costs more than the rest of the answer.
        outcomes=cast("Sequence[pb.Outcome.ValueType]", ingested.outcomes),
        rejections=to_rejections(ingested.problems),
    )
    if ingested.retry_after_s is not None:
        response.retry_after.FromMilliseconds(round(ingested.retry_after_s * 1000))
    return response


def to_rejections(problems: Sequence[Problem]) -> list[pb.Rejection]:
    """One per problem."""
    return [pb.Rejection(index=p.index, reason=p.reason, field=p.field, message=p.message) for p in problems]


def to_filter(request: pb.QueryEventsRequest) -> EventFilter:
    """What is asked for. Raises InvalidArgument: TIME_OUT_OF_RANGE."""
    times: dict[str, datetime] = {}
    violations = []
    for field, stamp in (("start_time", request.start_time), ("end_time", request.end_time)):
        try:
            times[field] = stamp.ToDatetime(UTC)
        except (ValueError, OverflowError):
            violations.append(Violation(field, "TIME_OUT_OF_RANGE", "must be from year 1 to 9999"))
    if violations:
        raise InvalidArgument(violations=violations)
    return EventFilter(
        start=times["start_time"],
        end=times["end_time"],
        source=request.source,
        type=request.type,
        labels=dict(request.labels.items()),
    )


def to_event(row: StoredEvent) -> pb.Event:
    """A stored event as it came, but for the order inside its data."""
    return pb.Event(
        source=row.source,
        id=row.event_id,
        time_us=(row.ts - _EPOCH) // _US,
        type=row.type,
        subject=row.subject,
        site=row.site,
        severity=pb.Severity.ValueType(row.severity),
        value=row.value,
        labels=_labels(row.labels),
        data=row.data.encode() if row.data is not None else b"",
    )


def event_cursor(row: StoredEvent) -> tuple[int, str]:
    """Where the page behind this event begins."""
    return (row.ts - _EPOCH) // _US, row.event_key.hex()


def event_place(time_us: int, key: str) -> EventPlace:
    """The reverse of `event_cursor`. Raises ValueError or OverflowError: there can be no such place."""
    return EventPlace(_EPOCH + time_us * _US, bytes.fromhex(key))


def tail_filter(request: pb.TailEventsRequest) -> Callable[[pb.Event], bool]:
    """Whether a tail wants an event."""
    source, type_, labels = request.source, request.type, dict(request.labels.items())

    def wanted(event: pb.Event) -> bool:
        return (
            (not source or event.source == source)
            and (not type_ or event.type == type_)
            and all(event.labels.get(key) == text for key, text in labels.items())
        )

    return wanted


def to_outcome(outcome: RecordOutcome) -> pb.IngestOutcome:
    """What became of a producer's record."""
    message = pb.IngestOutcome(
        partition=outcome.partition,
        offset=outcome.offset,
        accepted=outcome.tally.accepted,
        duplicates=outcome.tally.duplicates,
        rejected=outcome.tally.rejected,
        rejections=to_rejections(outcome.problems),
    )
    message.record_time.FromDatetime(outcome.record_time)
    return message


def outcome_cursor(outcome: RecordOutcome) -> tuple[int, str]:
    """Where the page behind this outcome begins."""
    return (outcome.record_time - _EPOCH) // _US, outcome.outcome_id.hex


def outcome_place(time_us: int, outcome_id: str) -> tuple[datetime, UUID]:
    """The reverse of `outcome_cursor`. Raises ValueError or OverflowError: there can be no such place."""
    return _EPOCH + time_us * _US, UUID(outcome_id)


def to_usage(month: date, count: MonthCount, quota: Quota) -> pb.IngestUsage:
    """The month so far."""
    message = pb.IngestUsage(
        month=f"{month:%Y-%m}",
        accepted=count.accepted,
        quota=quota.events,
        hard_limit=quota.hard_events,
    )
    if count.passed_at is not None:
        message.grace_until.FromDatetime(count.passed_at + quota.grace)
    return message
