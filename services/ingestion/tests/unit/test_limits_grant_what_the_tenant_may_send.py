from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tlsy.ingestion.domain.limits import Allowance, Quota, TokenBucket, allow

NOW = datetime(2026, 5, 4, tzinfo=UTC)
QUOTA = Quota(events=1000, hard_events=1500, grace=timedelta(days=7))


def test_a_burst_of_two_seconds_is_granted_and_then_the_rate():
    bucket = TokenBucket(100, now_s=0)
    assert bucket.take(500, now_s=0) == 200
    assert bucket.take(500, now_s=0.5) == 50
    assert bucket.retry_after_s(50) == 0.5


def test_a_rate_of_zero_is_unlimited():
    assert TokenBucket(0, now_s=0).take(10**9, now_s=0) == 10**9


def test_a_clock_that_goes_back_grants_nothing_extra():
    bucket = TokenBucket(100, now_s=10)
    bucket.take(200, now_s=10)
    assert bucket.take(1, now_s=5) == 0


def test_what_was_not_stored_can_be_taken_again():
    bucket = TokenBucket(100, now_s=0)
    bucket.take(200, now_s=0)
    bucket.give_back(30)
    assert bucket.take(200, now_s=0) == 30


@given(st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 2)), max_size=50))
def test_never_more_than_burst_plus_rate_is_granted(calls):
    bucket, now_s, granted = TokenBucket(100, now_s=0), 0.0, 0
    for wanted, wait_s in calls:
        now_s += wait_s
        granted += bucket.take(wanted, now_s)
    assert granted <= 200 + 100 * now_s + 1e-6


def test_within_the_quota_everything_is_taken():
    assert allow(QUOTA, 900, 100, None, NOW) == Allowance(100, "within")


def test_beyond_it_events_are_taken_during_the_grace_up_to_the_hard_end():
    assert allow(QUOTA, 1000, 100, NOW - timedelta(days=6), NOW) == Allowance(100, "grace")
    assert allow(QUOTA, 1450, 100, NOW - timedelta(days=6), NOW) == Allowance(50, "exhausted")


def test_after_the_grace_only_the_quota_is_taken():
    assert allow(QUOTA, 1000, 100, NOW - timedelta(days=7), NOW) == Allowance(0, "exhausted")


def test_a_quota_of_zero_is_unlimited():
    assert allow(Quota(0, 0, timedelta()), 10**12, 5, None, NOW) == Allowance(5, "within")
