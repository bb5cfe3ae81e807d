from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tlsy.ingestion.domain.meter import REREAD_AFTER_S, Hold, TenantMeter, quota_of

QUOTA = quota_of({"events_per_month": 100, "events_hard_percent": 100})
RAISED = quota_of({"events_per_month": 200})
LAST = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)
FIRST = LAST + timedelta(seconds=1)


def allowed(meter, wanted, now=LAST):
    return meter.allow(QUOTA, wanted, now).events


def read(meter, used, now=LAST, now_s=0.0, stored_before=0):
    meter.reread(used, None, QUOTA, now, now_s, stored_before=stored_before)


def test_the_count_is_read_at_first_and_when_it_is_old_or_of_another_quota():
    meter = TenantMeter(0, now_s=0.0)
    assert meter.is_stale(QUOTA, LAST, 0.0)
    read(meter, 10)
    assert not meter.is_stale(QUOTA, LAST, REREAD_AFTER_S - 0.1)
    assert meter.is_stale(QUOTA, LAST, REREAD_AFTER_S)
    assert meter.is_stale(RAISED, LAST, 0.0)


def test_a_new_month_begins_with_what_the_database_has_of_it():
    meter = TenantMeter(0, now_s=0.0)
    read(meter, 100)
    assert allowed(meter, 5) == 0
    assert meter.is_stale(QUOTA, FIRST, 1.0)
    read(meter, 0, FIRST, 1.0)
    assert allowed(meter, 5, FIRST) == 5


def test_what_a_batch_holds_is_nobody_else_s():
    meter = TenantMeter(0, now_s=0.0)
    read(meter, 0)
    one, other = Hold(meter), Hold(meter)
    one.take(60)
    other.take(allowed(meter, 60))
    assert allowed(meter, 1) == 0
    one.end(10)
    assert allowed(meter, 100) == 50


def test_what_was_stored_while_the_count_was_read_is_not_forgotten():
    meter = TenantMeter(0, now_s=0.0)
    read(meter, 0)
    hold, before = Hold(meter), meter.stored_ever
    hold.take(30)
    hold.end(30)
    read(meter, 0, stored_before=before)
    assert allowed(meter, 100) == 70
