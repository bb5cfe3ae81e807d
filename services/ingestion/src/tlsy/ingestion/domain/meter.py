"""What one replica keeps in memory of one tenant's sending, so that no event asks anybody."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

from tlsy.ingestion.domain.limits import Quota, TokenBucket, allow

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from tlsy.ingestion.domain.limits import Allowance

#: How old the month's count may be before it is read again with the next batch.
REREAD_AFTER_S: Final = 5.0


def quota_of(entitlements: Mapping[str, int]) -> Quota:
    """A tenant's quota; a missing entitlement limits nothing."""
    events = entitlements.get("events_per_month", 0)
    return Quota(
        events=events,
        hard_events=events * max(100, entitlements.get("events_hard_percent", 100)) // 100,
        grace=timedelta(hours=entitlements.get("events_grace_hours", 0)),
    )


def month_start(time: datetime) -> date:
    """The UTC month that an event stored at `time` is counted in, as its first day."""
    return date(time.year, time.month, 1)


class TenantMeter:
    """Rate and quota of one tenant as this replica knows them.

    The month's count and when its quota was passed are the database's: whenever `is_stale`, the caller reads
    them in the transaction at hand and calls `reread`. What batches on their way hold is counted as if it
    were stored already.
    """

    __slots__ = ("bucket", "held", "month", "passed_at", "quota_events", "read_s", "stored_ever", "used")

    def __init__(self, rate_per_s: int, now_s: float) -> None:
        self.bucket = TokenBucket(rate_per_s, now_s)
        self.month: date | None = None
        self.used = 0
        self.held = 0
        self.stored_ever = 0
        self.quota_events = 0
        self.passed_at: datetime | None = None
        self.read_s = 0.0

    def is_stale(self, quota: Quota, now: datetime, now_s: float) -> bool:
        """Whether the count must be read before it decides: it is old, or of another month or quota."""
        of_these = self.month == month_start(now) and self.quota_events == quota.events
        return not of_these or now_s - self.read_s >= REREAD_AFTER_S

    def reread(
        self,
        used: int,
        passed_at: datetime | None,
        quota: Quota,
        now: datetime,
        now_s: float,
        *,
        stored_before: int,
    ) -> None:
        """Takes over what the database has of this month.

        `stored_before` is `stored_ever` before the question: what was committed since may be missing in the
        answer, and is counted on top rather than not at all.
        """
        self.month, self.quota_events, self.passed_at = month_start(now), quota.events, passed_at
        self.read_s = now_s
        self.used = used + self.stored_ever - stored_before

    def allow(self, quota: Quota, wanted: int, now: datetime) -> Allowance:
        """How many of `wanted` events the quota allows."""
        return allow(quota, self.used + self.held, wanted, self.passed_at, now)


class Hold:
    """What one batch may store, kept from others until it is known what it did store."""

    __slots__ = ("_events", "_meter")

    def __init__(self, meter: TenantMeter) -> None:
        self._meter = meter
        self._events = 0

    def take(self, events: int) -> None:
        """Holds so many, instead of what it held before."""
        self._meter.held += events - self._events
        self._events = events

    def end(self, stored: int) -> None:
        """Lets go, and counts what was committed."""
        self.take(0)
        self._meter.used += stored
        self._meter.stored_ever += stored
