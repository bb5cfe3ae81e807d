"""When wrong passwords lock an account, and a tenant.

An attempt is counted before its password is checked, in a transaction of its own under the user's row lock,
so that a thousand attempts at once get no more guesses than one after another. A right password takes the
count back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class LockoutPolicy:
    """`max_failures` wrong passwords in `window_s` lock for `lock_s`, doubled each time to `max_lock_s`."""

    max_failures: int
    window_s: float
    lock_s: float
    max_lock_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """What is remembered of an account's wrong passwords.

    Attributes:
        failures: attempts since `since` that no right password has taken back.
        since: when the window of `failures` began; None where there are none.
        locked_until: no password is looked at before this time; None: never locked since the last log-in.
        lockouts: how often it was locked since the last log-in: the exponent of the back-off.
    """

    failures: int = 0
    since: datetime | None = None
    locked_until: datetime | None = None
    lockouts: int = 0


def locked(attempts: Attempts, now: datetime) -> bool:
    """Whether attempts are refused unread at this time."""
    return attempts.locked_until is not None and now < attempts.locked_until


def untried(attempts: Attempts, now: datetime, policy: LockoutPolicy) -> bool:
    """Whether there was neither a wrong password nor a lock within the window."""
    window = timedelta(seconds=policy.window_s)
    failed = attempts.since is not None and now - attempts.since < window
    return not failed and (attempts.locked_until is None or now - attempts.locked_until >= window)


def begin_attempt(attempts: Attempts, now: datetime, policy: LockoutPolicy) -> Attempts | None:
    """The state to store before the password is checked; None: locked, do not check it.

    The attempt that reaches the limit is still checked, but stores the lock first.
    """
    if locked(attempts, now):
        return None
    window = timedelta(seconds=policy.window_s)
    if attempts.since is None or now - attempts.since >= window:
        attempts = replace(attempts, failures=0, since=now)
    failures = attempts.failures + 1
    if failures < policy.max_failures:
        return replace(attempts, failures=failures, locked_until=None)
    lock_s = min(policy.lock_s * 2 ** min(attempts.lockouts, 32), policy.max_lock_s)
    return Attempts(
        failures=0, since=None, locked_until=now + timedelta(seconds=lock_s), lockouts=attempts.lockouts + 1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A bucket: `tokens` left at monotonic time `at_s`."""

    tokens: float
    at_s: float


def refill(budget: Budget | None, now_s: float, *, size: float, per_s: float) -> Budget:
    """The bucket at `now_s`; a new one is full."""
    if budget is None:
        return Budget(tokens=size, at_s=now_s)
    return Budget(tokens=min(size, budget.tokens + max(0.0, now_s - budget.at_s) * per_s), at_s=now_s)
