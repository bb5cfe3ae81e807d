"""Times as the tables have them and as the engine has them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_us(time: datetime) -> int:
    """µs since 1970 UTC."""
    return (time - _EPOCH) // timedelta(microseconds=1)
