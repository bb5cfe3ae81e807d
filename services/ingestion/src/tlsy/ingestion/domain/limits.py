"""How much a tenant may send: events per second, and events per month with a soft and a hard end.

Nothing here asks anybody: the caller holds one bucket and one count per tenant in memory, and a replica
learns what the others counted when it reads the month's counters again. So a limit may be passed by what the
replicas take between two readings, and never by more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from datetime import datetime, timedelta

#: A batch is never put off for longer, however far the tenant is over its rate; the next try is counted anew.
MAX_RETRY_AFTER_S: Final = 30.0


class TokenBucket:
    """Events per second with a burst of two seconds' worth.

    The clock is monotonic seconds, given with each call. A rate of 0 means unlimited.
    """

    __slots__ = ("_level", "_rate_per_s", "_seen_s")

    def __init__(self, rate_per_s: float, now_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._level = self._burst
        self._seen_s = now_s

    @property
    def _burst(self) -> float:
        return 2 * self._rate_per_s

    def set_rate(self, rate_per_s: float) -> None:
        """Follows a changed entitlement; what was saved up beyond the new burst is lost."""
        self._rate_per_s = rate_per_s
        self._level = min(self._level, self._burst)

    def take(self, wanted: int, now_s: float) -> int:
        """Takes up to `wanted` events and returns how many were granted."""
        if self._rate_per_s <= 0:
            return wanted
        passed_s = max(0.0, now_s - self._seen_s)
        self._seen_s = now_s
        self._level = min(self._burst, self._level + passed_s * self._rate_per_s)
        # A wait of exactly retry_after_s must not miss by a rounding.
        granted = min(wanted, int(self._level + 1e-6))
        self._level -= granted
        return granted

    def take_all(self, wanted: int, now_s: float) -> bool:
        """Takes `wanted` events or none; more than a burst is granted when the bucket is full, on credit."""
        if self._rate_per_s <= 0:
            return True
        self.take(0, now_s)
        if self._level + 1e-6 < min(wanted, self._burst):
            return False
        self._level -= wanted
        return True

    def give_back(self, unused: int) -> None:
        """Returns what was granted and not stored."""
        self._level = min(self._burst, self._level + unused)

    def retry_after_s(self, wanted: int) -> float:
        """Seconds until `wanted` events, or a whole burst if that is less, will be granted."""
        if self._rate_per_s <= 0:
            return 0.0
        missing = min(wanted, self._burst) - self._level
        return min(MAX_RETRY_AFTER_S, max(0.1, missing / self._rate_per_s))


@dataclass(frozen=True, slots=True)
class Quota:
    """A tenant's monthly quota.

    Attributes:
        events: taken without a word; 0 means unlimited.
        hard_events: never passed.
        grace: how long after the quota was first passed in a month events are taken, up to the hard end.
    """

    events: int
    hard_events: int
    grace: timedelta


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many of the wanted events the quota allows.

    `stage` is "within", "grace" (beyond the quota, still taken), or "exhausted" (some or all refused).
    """

    events: int
    stage: Literal["within", "grace", "exhausted"]


def allow(quota: Quota, used: int, wanted: int, passed_at: datetime | None, now: datetime) -> Allowance:
    """Decides how many of `wanted` events a tenant may store.

    Args:
        quota: of the tenant.
        used: events stored this month, as far as this replica knows.
        wanted: events at hand.
        passed_at: when this quota was first passed this month; None if it was not.
        now: the time.
    """
    if not quota.events or used + wanted <= quota.events:
        return Allowance(wanted, "within")
    in_grace = passed_at is None or now < passed_at + quota.grace
    end = max(quota.events, quota.hard_events) if in_grace else quota.events
    allowed = max(0, min(wanted, end - used))
    return Allowance(allowed, "grace" if allowed == wanted else "exhausted")
