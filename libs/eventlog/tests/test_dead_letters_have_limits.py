from __future__ import annotations

import pytest

from tlsy.eventlog.dead_letters import DeadLetterGauge, DeadLetterLimits, OutsiderGauge, OutsiderLimits
from tlsy.eventlog.errors import DeadLetterLimitReached


def refuse(gauge):
    gauge.admit()
    gauge.refused()


def test_refusals_in_a_row_reach_the_limit():
    gauge = DeadLetterGauge(DeadLetterLimits(consecutive=3, ratio=1.0))
    for _ in range(3):
        refuse(gauge)
    with pytest.raises(DeadLetterLimitReached):
        refuse(gauge)


def test_an_applied_record_ends_the_row():
    gauge = DeadLetterGauge(DeadLetterLimits(consecutive=1, ratio=1.0))
    for _ in range(5):
        refuse(gauge)
        gauge.applied()


def test_a_high_ratio_reaches_the_limit_without_a_row():
    gauge = DeadLetterGauge(DeadLetterLimits(consecutive=9, ratio=0.4, window=10))
    for _ in range(2):
        refuse(gauge)
        gauge.applied()
    gauge.applied()
    with pytest.raises(DeadLetterLimitReached):
        refuse(gauge)


def test_what_left_the_window_does_not_count():
    gauge = DeadLetterGauge(DeadLetterLimits(consecutive=9, ratio=0.2, window=10))
    refuse(gauge)
    refuse(gauge)
    for _ in range(10):
        gauge.applied()
    refuse(gauge)


def test_few_records_say_nothing_about_the_ratio():
    gauge = DeadLetterGauge(DeadLetterLimits(consecutive=9, ratio=0.01, window=100))
    refuse(gauge)


def test_what_outsiders_cause_is_kept_at_a_bounded_rate():
    limits = OutsiderLimits(bytes_per_s=1_000, burst_bytes=5_000, least_bytes=500)
    gauge = OutsiderGauge(limits, now_s=0.0)
    assert [gauge.admits(10, 0.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert [gauge.admits(10, 1.0) for _ in range(3)] == [True, True, False]
    assert [gauge.admits(1_000_000, 60.0), gauge.admits(10, 61.0)] == [True, False]


def test_a_clock_that_goes_back_keeps_nothing_extra():
    gauge = OutsiderGauge(OutsiderLimits(burst_bytes=1_000, least_bytes=1_000), now_s=10.0)
    assert [gauge.admits(10, 10.0), gauge.admits(10, 5.0)] == [True, False]
