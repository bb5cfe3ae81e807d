"""The event as the engine sees it, and how a field reference reads it.

References are `source`, `type`, `subject`, `site`, `severity`, `value`, `labels.<key>` (the key is all that
follows the first dot, dots included) and `data.<a>.<b>` (one object member per dot).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

Scalar: TypeAlias = str | float | bool
ValueType: TypeAlias = Literal["number", "string", "boolean", "severity"]

SEVERITIES: Final = ("debug", "info", "warning", "error", "critical")
SEVERITY_RANK: Final[Mapping[str, int]] = {name: rank for rank, name in enumerate(SEVERITIES)}
HEADER_FIELDS: Final[Mapping[str, ValueType]] = {
    "source": "string",
    "type": "string",
    "subject": "string",
    "site": "string",
    "severity": "severity",
    "value": "number",
}
MAX_TEXT_CHARS: Final = 4096
MAX_SEARCHED_CHARS: Final = 1024  # of a text, by `contains` and `matches`
MAX_HEADER_CHARS: Final = 256  # of a text outside of data
MAX_AGGREGATED: Final = 1e15
_MAX_EXACT_INT: Final = 2**63
_NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})


class Event:
    """One supervision event; `time_us` is µs since the epoch, `severity` one of SEVERITIES.

    `data` may be given as JSON bytes: they are decoded at the first use, once, and bytes that are not a JSON
    object read as no data. A slotted class and not a dataclass: attribute reads are the hot path. `labels` is
    read by `get` alone. No event is kept beyond the engine's call that was given it.
    """

    __slots__ = ("_data", "id", "labels", "severity", "site", "source", "subject", "time_us", "type", "value")

    def __init__(
        self,
        *,
        source: str,
        id: str,  # noqa: A002 - the CloudEvents attribute's name
        time_us: int,
        type: str,  # noqa: A002 - the same
        subject: str = "",
        site: str = "",
        severity: str = "info",
        value: float | None = None,
        labels: Mapping[str, str] | None = None,
        data: bytes | dict[str, Any] | None = None,
    ) -> None:
        self.source = source
        self.id = id
        self.time_us = time_us
        self.type = type
        self.subject = subject
        self.site = site
        self.severity = severity
        self.value = value
        self.labels: Mapping[str, str] = _NO_LABELS if labels is None else labels
        self._data = data

    @property
    def data(self) -> dict[str, Any] | None:
        """The JSON object, or None."""
        data = self._data
        if isinstance(data, bytes):
            try:
                decoded = msgspec.json.decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                decoded = None
            data = self._data = decoded if isinstance(decoded, dict) else None
        return data


def data_member(data: dict[str, Any] | None, path: tuple[str, ...]) -> Any:
    """The member at `path`, or None where an object or the member is missing."""
    node: Any = data
    for name in path:
        if type(node) is not dict:
            return None
        node = node.get(name)
    return node


def data_number(data: dict[str, Any] | None, path: tuple[str, ...]) -> float | None:
    """The member as a finite double; booleans, other types and integers beyond 2^63 read as missing."""
    found = data_member(data, path)
    if type(found) is float:
        return found if found - found == 0.0 else None
    if type(found) is int and -_MAX_EXACT_INT <= found <= _MAX_EXACT_INT:
        return float(found)
    return None


def data_string(data: dict[str, Any] | None, path: tuple[str, ...]) -> str | None:
    """The member as text of at most MAX_TEXT_CHARS, or None."""
    found = data_member(data, path)
    return found if type(found) is str and len(found) <= MAX_TEXT_CHARS else None


def data_boolean(data: dict[str, Any] | None, path: tuple[str, ...]) -> bool | None:
    """The member as a boolean, or None."""
    found = data_member(data, path)
    return found if type(found) is bool else None


def data_scalar(data: dict[str, Any] | None, path: tuple[str, ...]) -> Scalar | None:
    """The member as the reader of its own type has it; objects and lists read as missing."""
    kind = type(data_member(data, path))
    reader = {str: data_string, bool: data_boolean}.get(kind, data_number)
    return reader(data, path)
