from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tlsy.cli.domain.errors import UsageError
from tlsy.cli.domain.events import event_in, shown

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def read(line):
    return event_in(line, "Line 1", "me", NOW, lambda: "new")


def test_what_is_left_out_is_filled_in():
    event = read('{"type": "host.cpu"}')
    assert (event.source, event.id, event.time_us) == ("me", "new", int(NOW.timestamp()) * 1_000_000)


def test_what_is_given_is_kept():
    event = read(
        '{"source": "s", "id": "1", "time": "2026-01-01T00:00:00.5Z", "type": "a.b", "severity": "error",'
        ' "value": 1.5, "labels": {"k": "v"}, "data": {"é": [1]}}'
    )
    assert (event.source, event.id, event.time_us, event.severity) == ("s", "1", 1_767_225_600_500_000, 4)
    assert (event.value, event.data.decode()) == (1.5, '{"é":[1]}')


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "1",
        "{",
        '{"typ": "a"}',
        '{"severity": "loud"}',
        '{"time": "soon"}',
        '{"labels": 1}',
        f'{{"value": {10**400}}}',
        '{"half a character \\ud800": 1}',
        "[" * 100_000,
    ],
    ids=lambda line: line[:30],
)
def test_what_is_no_event_is_told_with_its_line(line):
    with pytest.raises(UsageError) as caught:
        read(line)
    assert "Line 1" in caught.value.what


def test_a_stored_event_is_shown_with_a_time_and_its_data():
    assert shown(read('{"type": "a", "timeUs": "1767225600000000", "data": {"a": 1}}')) == {
        "time": "2026-01-01T00:00:00.000Z",
        "data": {"a": 1},
    }
