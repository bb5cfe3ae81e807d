from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from libs.eventlog.tests.world import CLOCK, GROUP, TOPIC, event_of, note_down, until
from tlsy.contracts.events import EVENTS_ACCEPTED
from tlsy.eventlog.delivery import Each
from tlsy.eventlog.errors import FinalError, ParkingFull
from tlsy.eventlog.group_books import GroupBooks
from tlsy.eventlog.parking import Parking, ParkingLimits
from tlsy.eventlog.partition import PartitionSettings
from tlsy.eventlog.ports import Received, TopicPartition
from tlsy.tenancy.context import PLATFORM
from tlsy.tenancy.provisioning import DesiredState


async def take_down(world, tenant):
    administrator = await world.installation.connect(None, world.installation.control)
    name = tenant.placement.database
    await administrator.execute(f"alter database {name} with allow_connections false")
    await administrator.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name
    )


async def bring_back(world, tenant):
    administrator = await world.installation.connect(None, world.installation.control)
    await administrator.execute(f"alter database {tenant.placement.database} with allow_connections true")


async def parked(world, count):
    tenancy = world.installation.tenancy("rules_engine")

    async def reached():
        async with tenancy.control(PLATFORM, write=False) as tx:
            return await tx.fetchval("select count(*) from rules_engine.parked_record") == count

    await until(reached)


@pytest.fixture
async def running(world, tenant, dedicated):
    await world.relaying()
    await world.consuming()
    await world.publish(dedicated, "before")
    await world.noted(dedicated, "before")
    return world


async def test_its_events_are_parked_and_replayed_in_order_and_others_go_on(running, tenant, dedicated):
    events = [event_of(dedicated, note) for note in ("one", "two", "three")]
    for event in events:
        await running.write(dedicated, event)
    await running.noted(dedicated, "before", "one", "two", "three")
    await take_down(running, dedicated)
    await running.send(*(event_of(dedicated, note) for note in ("down 1", "down 2")))
    await parked(running, 2)
    await running.send(event_of(tenant, "unaffected"))
    await running.noted(tenant, "unaffected")
    await running.send(event_of(dedicated, "down 3"))
    await parked(running, 3)
    await bring_back(running, dedicated)
    await running.noted(dedicated, "before", "one", "two", "three", "down 1", "down 2", "down 3")
    await parked(running, 0)
    await running.send(event_of(dedicated, "after"))
    await running.noted(dedicated, "before", "one", "two", "three", "down 1", "down 2", "down 3", "after")


async def test_parked_records_outlive_the_consumer(world, dedicated):
    consumer = await world.consuming()
    await take_down(world, dedicated)
    await world.send(event_of(dedicated, "parked"))
    await parked(world, 1)
    await consumer.stop(2.0)
    await world.consuming()
    await world.send(event_of(dedicated, "newer"))
    await parked(world, 2)
    await bring_back(world, dedicated)
    await world.noted(dedicated, "parked", "newer")


async def test_what_was_parked_is_replayed_after_a_restart_without_another_event(world, dedicated):
    consumer = await world.consuming()
    await take_down(world, dedicated)
    await world.send(event_of(dedicated, "parked"))
    await parked(world, 1)
    await consumer.stop(2.0)
    await bring_back(world, dedicated)
    await world.consuming()
    await world.noted(dedicated, "parked")


async def test_new_events_queue_up_behind_parked_ones(world, dedicated):
    slow = await world.consuming(partition=PartitionSettings(replay_s=600, replay_max_s=600))
    await take_down(world, dedicated)
    await world.send(event_of(dedicated, "parked"))
    await parked(world, 1)
    await bring_back(world, dedicated)
    await world.send(event_of(dedicated, "newer"))
    await parked(world, 2)
    assert await world.entries(dedicated) == []
    await slow.stop(2.0)
    await world.consuming()
    await world.noted(dedicated, "parked", "newer")


async def test_a_full_parking_stops_the_partition_and_loses_nothing(world, dedicated):
    await world.consuming(parking=ParkingLimits(rows=2))
    await take_down(world, dedicated)
    await world.send(event_of(dedicated, "1"))
    await parked(world, 1)
    await world.send(*(event_of(dedicated, str(n)) for n in range(2, 6)))
    await bring_back(world, dedicated)
    await world.noted(dedicated, "1", "2", "3", "4", "5")
    await parked(world, 0)


def received(tenant, value):
    return Received(
        topic=PARTITION.topic,
        partition=PARTITION.partition,
        offset=7,
        time=CLOCK.now(),
        key=None,
        value=value,
        headers=(("tenantid", str(tenant.tenant_id).encode()), ("é", b"")),
    )


PARTITION = TopicPartition(topic=TOPIC, partition=3)


async def assigned(tenancy):
    return await GroupBooks("rules_engine", GROUP, tenancy).take(PARTITION)


@pytest.mark.parametrize(("rows", "size"), [(1, 10_000), (10, 95)])
async def test_the_parking_is_bounded_in_rows_and_bytes(world, tenant, rows, size):
    tenancy = world.installation.tenancy("rules_engine")
    parking = Parking("rules_engine", GROUP, tenancy, limits=ParkingLimits(rows=rows, bytes=size))
    records = [replace(received(tenant, value=b"xx"), offset=offset, key=b"key") for offset in range(2)]
    epoch = await assigned(tenancy)
    await parking.park(tenant.tenant_id, PARTITION, records[:1], epoch=epoch)
    with pytest.raises(ParkingFull):
        await parking.park(tenant.tenant_id, PARTITION, records[1:], epoch=epoch)
    assert (await parking.backlog())[0] == 1


async def test_a_record_is_parked_once(world, tenant):
    tenancy = world.tenancy("rules_engine")
    parking, epoch = Parking("rules_engine", GROUP, tenancy), await assigned(tenancy)
    first = received(tenant, value=b"1")
    of_another_log = replace(first, time=first.time + timedelta(milliseconds=1))
    for records in ([first], [first, of_another_log], [first]):
        await parking.park(tenant.tenant_id, PARTITION, records, epoch=epoch)
    assert (await parking.backlog())[0] == 2


async def test_a_parked_record_is_read_back_as_it_was(world, tenant):
    tenancy = world.installation.tenancy("rules_engine")
    parking = Parking("rules_engine", GROUP, tenancy)
    record = received(tenant, value=b"\x00\xff")
    await parking.park(tenant.tenant_id, PARTITION, [record], epoch=await assigned(tenancy))
    assert [found for _, found in await parking.first(tenant.tenant_id, PARTITION, 10)] == [record]
    assert await parking.tenants(PARTITION) == [tenant.tenant_id]


async def test_a_suspended_tenants_events_wait_for_it(world, installation, tenant):
    await world.consuming()
    suspended = replace(tenant, epoch=tenant.epoch + 1)
    await installation.converge(suspended, DesiredState.SUSPENDED)
    installation.catalog.put(suspended)
    await world.send(event_of(tenant, "waits"))
    await parked(world, 1)
    resumed = replace(tenant, epoch=tenant.epoch + 2)
    await installation.converge(resumed, DesiredState.ACTIVE)
    installation.catalog.put(resumed)
    await world.noted(resumed, "waits")


async def test_a_parked_record_that_is_refused_later_does_not_block(world, dedicated):
    async def refuse_first(delivery, tx):
        if delivery.message.events[0].id == "bad":
            raise FinalError("BAD", "refused on replay")
        await note_down(delivery, tx)

    await world.consuming({EVENTS_ACCEPTED: Each(refuse_first)})
    await take_down(world, dedicated)
    await world.send(event_of(dedicated, "bad"), event_of(dedicated, "good"))
    await parked(world, 2)
    await bring_back(world, dedicated)
    await world.noted(dedicated, "good")
    await parked(world, 0)


def written(event, age):
    """The event with an id of another time."""
    return replace(event, id=UUID(int=event.id.int - (int(age / timedelta(milliseconds=1)) << 80)))


async def test_events_of_days_that_the_inbox_does_not_have_yet_wait_for_it(world, tenant):
    await world.consuming()
    await world.send(written(event_of(tenant, "of three days ago"), timedelta(days=3)))
    await parked(world, 1)
    administrator = await world.installation.connect(None, tenant.placement)
    await administrator.execute("select tlsy.make_partitions('rules_engine.inbox', $1)", CLOCK.now().date())
    await world.noted(tenant, "of three days ago")


async def test_events_whose_effects_have_no_partition_yet_wait_for_it(world, tenant):
    async def pass_on(delivery, tx):
        await note_down(delivery, tx)
        tx.publish(event_of(tenant, "an effect"))

    administrator = await world.installation.connect(None, tenant.placement)
    today = CLOCK.now().date()
    # Tomorrow's too: the day may end while the event is on its way.
    for day in (today, today + timedelta(days=1)):
        await administrator.execute(f"drop table rules_engine.outbox_p{day:%Y%m%d}")
    await world.consuming({EVENTS_ACCEPTED: Each(pass_on)})
    await world.send(event_of(tenant, "after a long outage"))
    await parked(world, 1)
    await administrator.execute("select tlsy.make_partitions('rules_engine.outbox', $1)", today)
    await world.noted(tenant, "after a long outage")


async def test_an_event_of_the_far_future_is_refused(world, tenant):
    await world.send(written(event_of(tenant, "a"), timedelta(days=-40)), event_of(tenant, "b"))
    await world.consuming()
    await world.noted(tenant, "b")
    await parked(world, 0)
