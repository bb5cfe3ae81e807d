from __future__ import annotations

from tlsy.eventlog.errors import LogUnavailable
from tlsy.eventlog.relay import Complaints


def test_a_reason_is_said_at_once_and_then_every_30_seconds():
    complaints = Complaints()
    assert [complaints.times("LOG_UNAVAILABLE", now) for now in (5.0, 5.1, 34.9, 35.0, 36.0)] == [
        1,
        0,
        0,
        3,
        0,
    ]


def test_another_reason_is_said_at_once():
    complaints = Complaints()
    said = [complaints.times(reason, 5.0) for reason in ("A", "B", "A", "B")]
    assert said == [1, 1, 0, 0]


async def test_a_relay_without_a_broker_is_quiet(world, fake_clock, log_lines):
    relay = world.relay(clock=fake_clock)
    for _ in range(1_000):
        relay._count_failure(LogUnavailable("away"))
        fake_clock.advance(0.05)
    assert log_lines.text.count("relaying failed") == 2
