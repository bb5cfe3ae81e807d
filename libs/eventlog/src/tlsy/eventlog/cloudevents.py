"""CloudEvents 1.0 in Kafka's binary mode: attributes are headers, the value is the protobuf message.

`tenantid`, `epoch` and `traceparent` are extension attributes that go without the `ce_` prefix, so that any
Kafka tool shows them by the names that logs use; `ce_principal` and `ce_requestid` have it, and are left out
where they are not known. `log` is no attribute: it is the incarnation of the topic that the relay wrote to,
and belongs to the record.
"""

from __future__ import annotations

from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from uuid import UUID

from tlsy.contracts.cloudevents import CloudEvent
from tlsy.eventlog.errors import Poison

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlsy.eventlog.ports import Headers

MAX_DATA_BYTES: Final = 524_288
LOG_HEADER: Final = "log"

_SPEC_VERSION: Final = b"1.0"
_CONTENT_TYPE: Final = b"application/protobuf"
_MAX_HEADER_BYTES: Final = 1_024
_TRACE: Final = "traceparent"
_PRINCIPAL: Final = "ce_principal"
_REQUEST_ID: Final = "ce_requestid"
#: May be missing; not longer than the outbox of who publishes in turn takes.
_OPTIONAL: Final = MappingProxyType({_TRACE: _MAX_HEADER_BYTES, _PRINCIPAL: 256, _REQUEST_ID: 64})
_MAX_EPOCH: Final = 2**63 - 1
_UUID_VERSION: Final = 7
_REQUIRED: Final = (
    "ce_specversion",
    "ce_id",
    "ce_type",
    "ce_source",
    "ce_time",
    "content-type",
    "tenantid",
    "epoch",
)


def to_headers(event: CloudEvent, *, log: int) -> Headers:
    """The headers of `event`'s record in incarnation `log` of its topic; the value is `event.data`."""
    headers = [
        ("ce_specversion", _SPEC_VERSION),
        ("ce_id", str(event.id).encode()),
        ("ce_type", event.type.encode()),
        ("ce_source", event.source.encode()),
        ("ce_time", event.time.astimezone(UTC).isoformat().replace("+00:00", "Z").encode()),
        ("content-type", _CONTENT_TYPE),
        ("tenantid", str(event.tenant_id).encode()),
        ("epoch", str(event.epoch).encode()),
        (LOG_HEADER, str(log).encode()),
    ]
    if event.traceparent:
        headers.append((_TRACE, event.traceparent.encode()))
    if event.principal:
        headers.append((_PRINCIPAL, event.principal.encode()))
    if event.correlation_id:
        headers.append((_REQUEST_ID, event.correlation_id.encode()))
    return tuple(headers)


def from_record(headers: Headers, key: bytes | None, value: bytes) -> CloudEvent:
    """The event that a record holds.

    Raises Poison MALFORMED_RECORD naming every problem: an attribute missing, repeated, too long or
    unreadable; a key that is not of the tenant; data too large.
    """
    problems: list[str] = []
    found = _collect(headers, problems)
    event_id = _uuid(found, "ce_id", problems)
    if event_id is not None and event_id.version != _UUID_VERSION:
        problems.append("ce_id is no UUIDv7")
    tenant_id = _uuid(found, "tenantid", problems)
    time = _time(found, problems)
    epoch = _epoch(found, problems)
    text_key = _key(key, tenant_id, problems)
    for name, wanted in (("ce_specversion", _SPEC_VERSION), ("content-type", _CONTENT_TYPE)):
        if name in found and found[name].encode() != wanted:
            problems.append(f"{name} is not {wanted.decode()}")
    if len(value) > MAX_DATA_BYTES:
        problems.append(f"data is longer than {MAX_DATA_BYTES} bytes")
    if problems or event_id is None or tenant_id is None or time is None or epoch is None:
        raise Poison("MALFORMED_RECORD", problems)
    return CloudEvent(
        id=event_id,
        type=found["ce_type"],
        source=found["ce_source"],
        tenant_id=tenant_id,
        epoch=epoch,
        time=time,
        key=text_key,
        data=value,
        traceparent=found.get(_TRACE, ""),
        principal=found.get(_PRINCIPAL, ""),
        correlation_id=found.get(_REQUEST_ID, ""),
    )


def log_of(headers: Headers) -> int | None:
    """The incarnation of the topic that the relay wrote to; None for a record of another writer."""
    for name, value in headers:
        if name == LOG_HEADER and value.isdigit() and len(value) < 10:  # noqa: PLR2004 - fits an integer column
            return int(value)
    return None


def _collect(headers: Headers, problems: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        if name not in _REQUIRED and name not in _OPTIONAL:
            continue
        limit = _OPTIONAL.get(name, _MAX_HEADER_BYTES)
        text = value.decode("ascii", errors="replace")
        if name in found:
            problems.append(f"{name} is there twice")
        elif len(value) > limit:
            problems.append(f"{name} is longer than {limit} bytes")
        elif not (text.isascii() and text.isprintable()):
            problems.append(f"{name} is not printable ASCII")
        else:
            found[name] = text
    problems.extend(
        f"{name} is missing" for name in _REQUIRED if not any(name == given for given, _ in headers)
    )
    return found


def _uuid(found: Mapping[str, str], name: str, problems: list[str]) -> UUID | None:
    if name not in found:
        return None
    try:
        value = UUID(found[name])
    except ValueError:
        value = None
    if value is None or str(value) != found[name]:
        problems.append(f"{name} is no UUID in its canonical form")
        return None
    return value


def _time(found: Mapping[str, str], problems: list[str]) -> datetime | None:
    if "ce_time" not in found:
        return None
    try:
        value = datetime.fromisoformat(found["ce_time"])
    except ValueError:
        value = None
    if value is None or value.tzinfo is None:
        problems.append("ce_time is no RFC 3339 time with an offset")
        return None
    return value.astimezone(UTC)


def _epoch(found: Mapping[str, str], problems: list[str]) -> int | None:
    if "epoch" not in found:
        return None
    text = found["epoch"]
    if not text.isdigit() or int(text[:20]) > _MAX_EPOCH:
        problems.append("epoch is no number from 0 to 2^63 - 1")
        return None
    return int(text)


def _key(key: bytes | None, tenant_id: UUID | None, problems: list[str]) -> str:
    try:
        text = (key or b"").decode("utf-8")
    except UnicodeDecodeError:
        problems.append("the key is not UTF-8")
        return ""
    if tenant_id is not None and not (text == tenant_id.hex or text.startswith(f"{tenant_id.hex}/")):
        problems.append("the key is not of the tenant in tenantid")
    return text
