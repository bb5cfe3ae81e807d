from __future__ import annotations

from datetime import timedelta

from libs.eventlog.tests.test_a_consumer_applies_each_event_once import _stopped, dead_letters, refuse_bad
from libs.eventlog.tests.test_a_tenant_whose_database_is_down_waits_alone import parked, take_down
from libs.eventlog.tests.world import CLOCK, GROUP, TOPIC, event_of, until
from tlsy.contracts.events import EVENTS_ACCEPTED
from tlsy.eventlog.delivery import Each
from tlsy.runtime.clock import SystemClock


class Ahead(SystemClock):
    """An hour ahead of those who wrote."""

    def now(self):
        return CLOCK.now() + timedelta(hours=1)


def value(gauge, *labels):
    return gauge.labels(*labels)._value.get()


async def test_a_stopped_partition_falls_behind(world, tenant):
    await world.send(*(event_of(tenant, f"bad{n}") for n in range(30)))
    consumer = await world.consuming({EVENTS_ACCEPTED: Each(refuse_bad)}, clock=Ahead())
    await until(lambda: _stopped(consumer))
    await world.send(*(event_of(tenant, f"more{n}") for n in range(5)))
    reader = consumer._reader
    await until(lambda: _measured(world, consumer, reader, 15))
    assert value(world.metrics.lag_s, GROUP, TOPIC) >= 3_600


async def _measured(world, consumer, reader, items):
    await consumer._measure_lag(reader)
    return value(world.metrics.lag, GROUP, TOPIC) == items


async def test_parked_records_and_letters_have_an_age(world, tenant, dedicated):
    await take_down(world, dedicated)
    await world.send(event_of(tenant, "bad"), event_of(dedicated, "waits"))
    await world.consuming({EVENTS_ACCEPTED: Each(refuse_bad)}, clock=Ahead())
    await parked(world, 1)
    await dead_letters(world, 1)
    await until(lambda: _told(world), 60.0)


async def _told(world):
    metrics = world.metrics
    return (
        value(metrics.parked, GROUP) == value(metrics.dead_letter_backlog_items, GROUP) == 1
        and min(value(metrics.parked_s, GROUP), value(metrics.dead_letter_backlog_s, GROUP)) >= 3_500
    )
