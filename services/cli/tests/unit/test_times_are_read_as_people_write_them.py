from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tlsy.cli.domain.errors import UsageError
from tlsy.cli.domain.times import duration, moment

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("90s", timedelta(seconds=90)),
        ("1h30m", timedelta(minutes=90)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(days=14)),
    ],
)
def test_a_duration(text, wanted):
    assert duration(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("now", NOW),
        ("1h", datetime(2026, 3, 1, 11, 0, tzinfo=UTC)),
        ("2026-02-03", datetime(2026, 2, 3, tzinfo=UTC)),
        ("2026-02-03T04:05:06Z", datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)),
        ("2026-02-03T04:05:06+02:00", datetime(2026, 2, 3, 2, 5, 6, tzinfo=UTC)),
    ],
)
def test_a_time(text, wanted):
    assert moment(text, NOW) == wanted


@pytest.mark.parametrize(
    "text", ["", "1", "h", "1y", "yesterday", "2026-13-01", "0001-01-01T00:00+14:00", "99999999999w", "-1h"]
)
def test_what_is_neither_is_told_with_what_to_write(text):
    with pytest.raises(UsageError) as caught:
        moment(text, NOW)
    assert "1h30m" in caught.value.next_step
