"""What is read from a host, and how a reading becomes an event."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from tlsy.contracts.ingestion.v1 import ingestion_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What ingestion takes, in bytes of UTF-8; a test compares them with its own.
MAX_SOURCE_BYTES: Final = 200
MAX_SUBJECT_BYTES: Final = 200
MAX_SITE_BYTES: Final = 100
MAX_LABEL_KEY_BYTES: Final = 64
MAX_LABEL_VALUE_BYTES: Final = 256


class Severity(IntEnum):
    """The numbers are those of the proto."""

    INFO = 2
    WARNING = 3
    ERROR = 4
    CRITICAL = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One figure of one thing at one moment.

    Attributes:
        type: the event's type, e.g. "host.cpu"; its unit is in docs of the agent.
        subject: what it is about, e.g. a mount point or a probe's name.
        value: the figure; for a probe 1 is up and 0 is down; None where there is none to tell.
        severity: what the agent itself thinks of it; rules decide what is an incident.
        labels: beside the ones that every event of the agent carries.
    """

    type: str
    subject: str
    value: float | None
    severity: Severity = Severity.INFO
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What every event of this agent carries."""

    source: str
    site: str
    labels: Mapping[str, str]


def to_event(reading: Reading, origin: Origin, event_id: str, time_us: int) -> ingestion_pb2.Event:
    """The event that is kept on disk and sent; its id and time never change after this."""
    return ingestion_pb2.Event(
        source=origin.source,
        id=event_id,
        time_us=time_us,
        type=reading.type,
        subject=cut(reading.subject, MAX_SUBJECT_BYTES),
        site=origin.site,
        severity=ingestion_pb2.Severity.ValueType(reading.severity),
        value=reading.value,
        labels={
            **origin.labels,
            **{key: cut(value, MAX_LABEL_VALUE_BYTES) for key, value in reading.labels.items()},
        },
    )


def cut(text: str, most_bytes: int) -> str:
    """As much of a host's text as an event may carry: no NUL, valid UTF-8, whole characters."""
    return text.replace("\0", "").encode(errors="replace")[:most_bytes].decode(errors="ignore")
