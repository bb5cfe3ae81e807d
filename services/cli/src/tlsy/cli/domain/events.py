"""Events as people write them: a JSON object a line, or flags."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.json_format import ParseDict, ParseError

from tlsy.cli.domain.errors import UsageError
from tlsy.contracts.ingestion.v1 import ingestion_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

#: Beside what is no JSON: what is nested too deep, too large, or named by half a character.
_NOT_READ: Final = (ValueError, ParseError, RecursionError, OverflowError, SystemError)
_HOW: Final = 'One JSON object a line, e.g. {"type": "host.cpu", "value": 42, "labels": {"host": "web-1"}}.'


def event_in(
    line: str, where: str, source: str, now: datetime, new_id: Callable[[], str]
) -> ingestion_pb2.Event:
    """The event in one line of JSON.

    Names are those of the proto's JSON; `time` (ISO 8601) may stand for timeUs, `severity` may go without
    its prefix, and `data` is an object. A source, an id and a time that are left out are filled in.

    Raises:
        UsageError: it is none.
    """
    try:
        members = json.loads(line)
        if not isinstance(members, dict):
            raise UsageError(f"{where} is not a JSON object.", _HOW)
        return completed(ParseDict(_translated(members), ingestion_pb2.Event()), source, now, new_id)
    except _NOT_READ as error:
        raise UsageError(f"{where} is not an event: {error}", _HOW) from error


def completed(
    event: ingestion_pb2.Event, source: str, now: datetime, new_id: Callable[[], str]
) -> ingestion_pb2.Event:
    """The event, with a source, an id and a time where it had none."""
    event.source = event.source or source
    event.id = event.id or new_id()
    event.time_us = event.time_us or micros(now)
    return event


def micros(moment: datetime) -> int:
    """Microseconds since 1970."""
    return int(moment.timestamp() * 1_000_000)


def shown(event: ingestion_pb2.Event) -> dict[str, Any]:
    """What is shown of an event beside its JSON: a time and data that people can read."""
    members: dict[str, Any] = {"time": _time_of(event)}
    if event.data:
        try:
            members["data"] = json.loads(event.data)
        except ValueError:
            members["data"] = event.data.decode(errors="replace")
    return members


def _time_of(event: ingestion_pb2.Event) -> str:
    try:
        moment = datetime.fromtimestamp(event.time_us / 1_000_000, UTC)
    except (OverflowError, ValueError, OSError):
        return ""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _translated(members: dict[str, Any]) -> dict[str, Any]:
    proto = dict(members)
    if "time" in proto:
        moment = datetime.fromisoformat(str(proto.pop("time")))
        proto["timeUs"] = micros(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    data = proto.pop("data", None)
    if isinstance(data, dict):
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        proto["data"] = base64.b64encode(text.encode()).decode()
    elif data is not None:
        proto["data"] = data
    severity = proto.get("severity")
    if isinstance(severity, str) and not severity.startswith("SEVERITY_"):
        proto["severity"] = f"SEVERITY_{severity.upper()}"
    return proto
