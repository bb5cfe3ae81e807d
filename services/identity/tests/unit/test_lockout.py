from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tlsy.identity.domain.lockout import Attempts, LockoutPolicy, begin_attempt, locked, refill, untried

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = LockoutPolicy(max_failures=3, window_s=60, lock_s=30, max_lock_s=100)


def fail(attempts: Attempts, times: int, now: datetime = NOW) -> Attempts:
    for _ in range(times):
        begun = begin_attempt(attempts, now, POLICY)
        assert begun is not None
        attempts = begun
    return attempts


def test_the_attempt_that_reaches_the_limit_is_checked_but_stores_the_lock_first() -> None:
    attempts = fail(Attempts(), 3)
    assert attempts.locked_until == NOW + timedelta(seconds=30)
    assert begin_attempt(attempts, NOW, POLICY) is None


def test_attempts_of_an_older_window_do_not_count() -> None:
    attempts = fail(Attempts(), 2)
    later = NOW + timedelta(seconds=60)
    begun = begin_attempt(attempts, later, POLICY)
    assert begun == Attempts(failures=1, since=later)


def test_a_lock_ends_by_itself_and_the_next_one_is_twice_as_long() -> None:
    attempts = fail(Attempts(), 3)
    later = NOW + timedelta(seconds=30)
    assert not locked(attempts, later)
    again = fail(attempts, 3, later)
    assert again.locked_until == later + timedelta(seconds=60)


def test_who_has_failed_or_was_locked_within_the_window_is_not_untried() -> None:
    for attempts, ends in ((fail(Attempts(), 1), 60), (fail(Attempts(), 3), 30 + 60)):
        assert untried(attempts, NOW + timedelta(seconds=ends), POLICY)
        assert not untried(attempts, NOW + timedelta(seconds=ends - 1), POLICY)
    assert untried(Attempts(), NOW, POLICY)


def test_a_lock_is_never_longer_than_the_longest() -> None:
    attempts = Attempts(lockouts=1000)
    assert fail(attempts, 3).locked_until == NOW + timedelta(seconds=100)


def test_a_budget_refills_with_time_up_to_its_size() -> None:
    budget = refill(None, 0.0, size=10, per_s=1)
    spent = type(budget)(tokens=budget.tokens - 10, at_s=budget.at_s)
    assert refill(spent, 4.0, size=10, per_s=1).tokens == 4
    assert refill(spent, 400.0, size=10, per_s=1).tokens == 10
