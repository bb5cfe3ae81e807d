"""Times as people write them on a command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from tlsy.cli.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNITS_S: Final[Mapping[str, int]] = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION: Final = re.compile(r"(?:\d+[smhdw])+")
_PART: Final = re.compile(r"(\d+)([smhdw])")
_HOW: Final = "Write a duration such as 90s, 1h30m or 7d, or a time such as 2026-01-31T12:00:00Z."
_LONGEST: Final = timedelta(days=3660)


def duration(text: str) -> timedelta:
    """A duration such as "1h30m".

    Raises:
        UsageError: it is none, or longer than ten years.
    """
    if not _DURATION.fullmatch(text):
        raise UsageError(f"{text!r} is not a duration.", _HOW)
    seconds = sum(int(count) * _UNITS_S[unit] for count, unit in _PART.findall(text))
    if seconds > _LONGEST.total_seconds():
        raise UsageError(f"{text!r} is longer than ten years.", _HOW)
    return timedelta(seconds=seconds)


def moment(text: str, now: datetime) -> datetime:
    """A time in UTC from "1h" (ago), "now", or ISO 8601 (UTC if it names no zone).

    Raises:
        UsageError: it is none of these.
    """
    if text == "now":
        return now
    if _DURATION.fullmatch(text):
        return now - duration(text)
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is not a time.", _HOW) from None
