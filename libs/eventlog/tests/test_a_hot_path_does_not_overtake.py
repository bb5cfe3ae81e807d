from __future__ import annotations

from libs.eventlog.tests.test_a_relay_loses_and_reorders_nothing import Flaky
from libs.eventlog.tests.world import event_of, note_of, until


async def ready(world, relay, tenant):
    """Wait until the relay has swept the tenant's database once."""

    async def condition():
        return any(
            lane.swept for lane in relay._lanes.values() if lane.database.placement == tenant.placement
        )

    await until(condition)


async def commit(world, relay, tenant, *notes):
    """As ingestion does: rows that the sweep leaves alone, then the relay is told."""
    events = [event_of(tenant, note) for note in notes]
    await world.write(tenant, *events, sweep_after_s=relay.settings.hot_window_s)
    return events


async def commit_and_publish(world, relay, tenant, note):
    """One more event from memory, once the sweep has caught up."""
    await ready(world, relay, tenant)
    relay.publish_after_commit(tenant.placement, await commit(world, relay, tenant, note))
    await world.published(tenant)


async def published_notes(world):
    return [note_of(record.value) for record in await world.records()]


async def test_committed_events_are_published_from_memory(world, tenant):
    relay = await world.relaying(sweep_s=60.0, hot_window_s=600.0)
    await ready(world, relay, tenant)
    relay.publish_after_commit(tenant.placement, await commit(world, relay, tenant, "a", "b"))
    await world.published(tenant)
    assert await published_notes(world) == ["a", "b"]
    assert world.metrics.published.labels("ingestion", "hot")._value.get() == 2


async def test_what_is_held_back_is_swept_at_once(world, tenant):
    relay = await world.relaying(sweep_s=60.0, hot_window_s=600.0, hot_bytes=1)
    await ready(world, relay, tenant)
    relay.publish_after_commit(tenant.placement, await commit(world, relay, tenant, "more than a byte"))
    await world.published(tenant)
    assert await published_notes(world) == ["more than a byte"]


async def test_what_a_crash_left_is_found_by_the_sweep(world, tenant):
    relay = await world.relaying(sweep_s=0.05, hot_window_s=0.5)
    await ready(world, relay, tenant)
    await commit(world, relay, tenant, "crashed before it was handed over")
    await world.published(tenant)
    assert world.metrics.published.labels("ingestion", "sweep")._value.get() == 1


async def test_the_sweep_leaves_fresh_rows_to_their_writer(world, tenant):
    relay = world.relay(hot_window_s=600.0)
    await commit(world, relay, tenant, "fresh")
    async with world.outboxes().lead(tenant.placement) as outbox:
        assert await outbox.unpublished(limit=9, max_bytes=999, all_rows=False) == []
        assert len(await outbox.unpublished(limit=9, max_bytes=999, all_rows=True)) == 1


async def test_what_could_not_go_out_is_not_overtaken(world, tenant, broker):
    relay = await world.relaying(hot_window_s=600.0)
    await ready(world, relay, tenant)
    notes = [f"{number:02}" for number in range(20)]
    await broker.stop()
    for note in notes[:10]:
        relay.publish_after_commit(tenant.placement, await commit(world, relay, tenant, note))
    await broker.start()
    for note in notes[10:]:
        relay.publish_after_commit(tenant.placement, await commit(world, relay, tenant, note))
    await world.published(tenant)
    seen = list(dict.fromkeys(await published_notes(world)))
    assert seen == notes


async def test_what_was_not_acknowledged_is_swept_before_what_follows(world, tenant):
    flaky = Flaky(world.producer())
    relay = await world.relaying(producer=flaky, sweep_s=60.0, hot_window_s=600.0, batch_bytes=1)
    await ready(world, relay, tenant)
    relay.publish_after_commit(tenant.placement, await commit(world, relay, tenant, "a", "b"))
    await world.published(tenant)
    assert await published_notes(world) == ["a", "b"]


async def test_a_full_queue_is_left_to_the_sweep_in_order(world, tenant):
    relay = await world.relaying(hot_window_s=600.0, hot_bytes=20)
    await ready(world, relay, tenant)
    events = await commit(world, relay, tenant, *(f"{number:02}" for number in range(20)))
    relay.publish_after_commit(tenant.placement, events)
    relay.wake(tenant.placement)
    await world.published(tenant)
    await commit_and_publish(world, relay, tenant, "last")
    assert await published_notes(world) == [*(f"{number:02}" for number in range(20)), "last"]


async def test_events_of_an_unknown_database_are_no_failure(world, tenant, dedicated):
    relay = world.relay()
    relay.publish_after_commit(dedicated.placement, [event_of(dedicated, "a")])
