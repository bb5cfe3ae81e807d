from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from tlsy.runtime.clock import SystemClock
from tlsy.runtime.ids import PLATFORM_TENANT_ID, Uuid7
from tlsy.testkit.clock import FakeClock


def ones(count: int) -> bytes:
    return b"\xff" * count


def test_an_id_is_a_uuid7_of_its_time():
    now = datetime(2026, 3, 4, 5, 6, 7, 891_000, tzinfo=UTC)
    made = Uuid7(FakeClock(now), ones)()
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert made.int >> 80 == int(now.timestamp() * 1000)


def test_ids_of_one_millisecond_grow():
    ids = Uuid7(FakeClock(), ones)
    made = [ids() for _ in range(10_000)]
    assert all(one < other for one, other in pairwise(made))


def test_ids_grow_while_the_clock_steps_back():
    clock = FakeClock()
    ids = Uuid7(clock, ones)
    before = ids()
    clock._now -= timedelta(hours=1)
    assert ids() > before


def test_a_full_sequence_borrows_from_the_next_millisecond():
    clock = FakeClock()
    ids = Uuid7(clock, ones)
    made = [ids() for _ in range(5000)]
    drift_ms = (made[-1].int >> 80) - (made[0].int >> 80)
    assert 0 < drift_ms <= 2


def test_the_platform_has_an_id_that_no_clock_makes():
    assert PLATFORM_TENANT_ID.version == 7
    assert PLATFORM_TENANT_ID.int >> 80 == 0


async def test_the_machines_clock_is_utc_and_does_not_go_back():
    clock = SystemClock()
    before = clock.monotonic()
    await clock.sleep(0.001)
    assert clock.monotonic() > before
    assert clock.now().tzinfo is UTC
