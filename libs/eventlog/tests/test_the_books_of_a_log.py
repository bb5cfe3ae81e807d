"""What relays and consumers write down so that a broker that forgets is noticed."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from libs.eventlog.tests.swapped import SwappedLog, received
from libs.eventlog.tests.test_a_hot_path_does_not_overtake import commit, ready
from libs.eventlog.tests.test_a_tenant_whose_database_is_down_waits_alone import parked
from libs.eventlog.tests.test_a_wiped_broker_loses_nothing import notes
from libs.eventlog.tests.world import CLOCK, TOPIC, event_of, note_down, until
from tlsy.contracts.events import EVENTS_ACCEPTED
from tlsy.eventlog.delivery import Each
from tlsy.eventlog.errors import TenantPaused
from tlsy.eventlog.kafka import KafkaInspector
from tlsy.runtime.brokers import Brokers


async def test_what_was_acknowledged_is_written_down(world, tenant):
    await world.relaying()
    await world.publish(tenant, "a", "b", "c")
    await world.published(tenant)
    await until(lambda: _ends(world, [2]))


async def _ends(world, offsets):
    return list((await world.outboxes().topic_ends(TOPIC, 1)).values()) == offsets


@pytest.mark.parametrize(("late", "kept"), [(1, {0: 5}), (2, {0: 9}), (3, {})])
async def test_ends_of_an_ended_incarnation_replace_nothing(world, late, kept):
    outboxes = world.outboxes()
    await outboxes.store_topic_ends(TOPIC, 2, {0: 5})
    await outboxes.store_topic_ends(TOPIC, late, {0: 9})
    assert await outboxes.topic_ends(TOPIC, 2) == kept


async def test_ends_are_locked_in_the_same_order_by_all(world):
    outboxes = world.outboxes()
    await outboxes.store_topic_ends(TOPIC, 1, {0: 1, 1: 1})
    elsewhere = await world.installation.connect(None, world.installation.control)
    touch = "update tlsy.topic_end set acknowledged_offset = 5 where partition = $1"
    # In pg_stat_activity it would see only those who were connected when it first looked.
    mine = "select from pg_locks where not granted and pg_backend_pid() = any (pg_blocking_pids(pid))"

    async def waited_for():
        return await elsewhere.fetchval(f"select exists ({mine})")

    async with elsewhere.transaction():
        await elsewhere.execute(touch, 0)
        storing = asyncio.create_task(outboxes.store_topic_ends(TOPIC, 1, {1: 9, 0: 9}))
        await until(waited_for)
        await elsewhere.execute(touch, 1)
    await storing
    assert await outboxes.topic_ends(TOPIC, 1) == {0: 9, 1: 9}


async def _cheapest_s(inspector):
    """Processor time to ask which cluster it is, at best."""
    took = []
    for _ in range(5):
        began = time.process_time()
        await inspector.cluster_id()
        took.append(time.process_time() - began)
    return min(took)


async def test_which_cluster_it_is_costs_the_same_however_many_topics_there_are(broker):
    inspector = KafkaInspector(Brokers(broker.address), "test")
    few = await _cheapest_s(inspector)
    await inspector.ensure_topics({f"topic-{number}": 12 for number in range(200)})
    many = await _cheapest_s(inspector)
    await inspector.stop()
    # Each batch that is published asks it. 2,400 partitions would cost a hundred times as much.
    assert many < 10 * few


class StaleLog:
    """Reads the incarnation as one that the lanes are not compared with yet."""

    def __init__(self, log):
        self.log = log

    def __getattr__(self, name):
        return getattr(self.log, name)

    async def current(self):
        return await self.log.current() + 1


async def test_the_hot_path_sends_nothing_to_a_log_that_its_rows_were_not_compared_with(world, tenant):
    relay = await world.relaying(sweep_s=600.0, hot_window_s=600.0)
    await ready(world, relay, tenant)
    relay._log = StaleLog(relay._log)
    relay.publish_after_commit(tenant.placement, await commit(world, relay, tenant, "a"))
    lane = next(lane for lane in relay._lanes.values() if lane.database.placement == tenant.placement)
    await asyncio.wait_for(lane.publishing, 60)
    assert not lane.swept
    assert await notes(world) == []


async def test_watermarks_are_kept_as_long_as_rows_that_they_concern(world, tenant):
    connection = await world.installation.connect(None, world.installation.control)
    ages = {"young": timedelta(days=13), "old": timedelta(days=15)}
    for group, age in ages.items():
        await connection.execute(
            "insert into tlsy.consumer_watermark values ($1, $2, 1, 0, 9, $3)",
            TOPIC,
            group,
            CLOCK.now() - age,
        )
    await world.relaying()
    await world.publish(tenant, "a")
    await world.published(tenant)
    kept = await connection.fetch("select consumer_group from tlsy.consumer_watermark")
    assert [row["consumer_group"] for row in kept] == ["young"]


async def test_a_record_that_waited_for_the_last_replay_is_not_parked_behind_it(world, tenant):
    """The tenant resumes while a new record of its waits for the lock: nothing is parked any more."""
    allowed = asyncio.Event()

    async def handle(delivery, tx):
        if not allowed.is_set():
            raise TenantPaused("TENANT_OVER_RATE", "too fast")
        await note_down(delivery, tx)

    log = SwappedLog()
    log.records = received(1, event_of(tenant, "a"))
    consumer = await world.consuming({EVENTS_ACCEPTED: Each(handle)}, reader=log.reader)
    await parked(world, 1)
    (assigned,) = consumer._assigned.values()
    paused = assigned.worker._paused[tenant.tenant_id]
    async with paused.lock:
        allowed.set()
        await world.noted(tenant, "a")
        await parked(world, 0)
        log.records += received(1, event_of(tenant, "b"), first=1)
        await until(lambda: _waits(paused.lock, 2))
    await world.noted(tenant, "a", "b")
    await parked(world, 0)


async def _waits(lock, count):
    return len(lock._waiters or ()) >= count
