"""A mark of the hot path that commits after its broker is gone."""

from __future__ import annotations

import asyncio

import pytest

from libs.eventlog.tests.test_a_hot_path_does_not_overtake import commit, ready
from libs.eventlog.tests.test_a_wiped_broker_loses_nothing import notes, wipe
from libs.eventlog.tests.world import CLOCK, TOPIC, until
from tlsy.eventlog.errors import LogChanged
from tlsy.eventlog.lane import Lane
from tlsy.eventlog.outboxes import Applied, day_of
from tlsy.eventlog.ports import Position


async def reconciled(world, tenant, log):
    connection = await world.installation.connect("tlsy_relay", tenant.placement)
    return await connection.fetchval("select reconciled_log from ingestion.relay_state") == log


async def waits_or_is_done(world, tenant, task):
    connection = await world.installation.connect(None, tenant.placement)
    return task.done() or await connection.fetchval("select exists (select from pg_locks where not granted)")


async def test_it_waits_for_the_comparison_and_marks_nothing_behind_it(world, tenant):
    outboxes = world.outboxes()
    (event,) = await world.publish(tenant, "a")
    async with outboxes.lead(tenant.placement) as outbox:
        await outbox.store_reconciled_log(1)
    async with outboxes.lead(tenant.placement) as outbox:
        assert await outbox.reconciled_log() == 1
        assert await outbox.unmark_lost(CLOCK.now().date(), 2, [], 9) == 0
        late = asyncio.create_task(outboxes.mark(tenant.placement, [(event, Position(0, 0))], 1))
        await until(lambda: waits_or_is_done(world, tenant, late))
        await outbox.store_reconciled_log(2)
    assert await late is False
    assert await world.unpublished(tenant) == 1


async def test_a_mark_of_the_present_log_is_made(world, tenant):
    outboxes = world.outboxes()
    (event,) = await world.publish(tenant, "a")
    async with outboxes.lead(tenant.placement) as outbox:
        await outbox.store_reconciled_log(2)
    assert await outboxes.mark(tenant.placement, [(event, Position(0, 0))], 2)
    assert await world.unpublished(tenant) == 0


async def test_a_mark_of_an_earlier_log_does_not_replace_one_of_a_later(world, tenant):
    """Else the row counts as applied: behind its offset the earlier log had much that was."""
    outboxes = world.outboxes()
    (event,) = await world.publish(tenant, "a")
    assert await outboxes.mark(tenant.placement, [(event, Position(0, 0))], 2)
    async with outboxes.lead(tenant.placement) as outbox:
        await outbox.mark([(event, Position(0, 0))], 1)
        assert await outbox.unmark_lost(day_of(event), 3, [Applied(1, 0, 1_000)], 9) == 1


async def test_a_mark_waits_for_no_disk_and_a_comparison_does(world, tenant):
    (event,) = await world.publish(tenant, "a")
    show = "show synchronous_commit"
    async with world.outboxes().lead(tenant.placement) as outbox:
        # Of servers that a test run throws away it is off.
        await outbox._connection.execute("set local synchronous_commit = on")
        await outbox.store_reconciled_log(1)
        assert await outbox._connection.fetchval(show) == "on"
        await outbox.mark([(event, Position(0, 0))], 1)
        assert await outbox._connection.fetchval(show) == "off"


async def test_who_knows_an_earlier_log_only_looks_again_before_it_compares(world, tenant):
    relay, outboxes = world.relay(), world.outboxes()
    assert await relay._log.current() == 1
    _, cluster_id = await outboxes.topic_log(TOPIC)
    await outboxes.next_topic_log(TOPIC, 1, cluster_id)
    (database,) = (d for d in relay._source.databases() if d.placement == tenant.placement)
    async with outboxes.lead(tenant.placement) as outbox:
        await outbox.store_reconciled_log(2)
    with pytest.raises(LogChanged):
        await relay._sweep(Lane(database, 1))
    assert await reconciled(world, tenant, 2)


@pytest.mark.parametrize("restored", [False, True])
async def test_who_swept_before_marks_nothing_of_an_earlier_log_either(world, tenant, fake_clock, restored):
    """Else the row counts as applied: behind its offset the earlier log had much that was.

    Where the books were restored to that, the rows are compared with it again; else they went out for ever.
    """
    relay, outboxes = world.relay(clock=fake_clock), world.outboxes()
    (database,) = (d for d in relay._source.databases() if d.placement == tenant.placement)
    lane = Lane(database, 1)
    while not lane.swept:
        await relay._sweep(lane)
    if not restored:
        _, cluster_id = await outboxes.topic_log(TOPIC)
        await outboxes.next_topic_log(TOPIC, 1, cluster_id)
    async with outboxes.lead(tenant.placement) as outbox:
        await outbox.store_reconciled_log(2)
    await world.publish(tenant, "a")
    with pytest.raises(LogChanged):
        await relay._sweep(lane)
    assert await world.unpublished(tenant) == 1
    while await world.unpublished(tenant):
        await relay._sweep(lane)
    assert await published_log(world, tenant) == (1 if restored else 2)


async def published_log(world, tenant):
    connection = await world.installation.connect("tlsy_relay", tenant.placement)
    return await connection.fetchval("select published_log from ingestion.outbox")


class LateMarks:
    """Outboxes whose first mark without a lead waits to be let go."""

    def __init__(self, outboxes):
        self.outboxes = outboxes
        self.waits = asyncio.Event()
        self.go = asyncio.Event()

    def __getattr__(self, name):
        return getattr(self.outboxes, name)

    async def mark(self, placement, published, log):
        self.waits.set()
        await self.go.wait()
        return await self.outboxes.mark(placement, published, log)


async def test_its_event_is_published_to_the_new_broker(world, tenant, broker):
    late = LateMarks(world.outboxes())
    relay = await world.relaying(outboxes=late, hot_window_s=600.0)
    await ready(world, relay, tenant)
    relay.publish_after_commit(tenant.placement, await commit(world, relay, tenant, "a"))
    await asyncio.wait_for(late.waits.wait(), 60)
    await wipe(broker)
    await until(lambda: reconciled(world, tenant, 2), 60.0)
    late.go.set()
    await world.published(tenant)
    assert "a" in await notes(world)
