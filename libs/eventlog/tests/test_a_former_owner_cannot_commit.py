from __future__ import annotations

import asyncio

import pytest

from libs.eventlog.tests.swapped import SwappedLog, received
from libs.eventlog.tests.test_a_tenant_whose_database_is_down_waits_alone import parked
from libs.eventlog.tests.world import GROUP, IDS, TOPIC, event_of, until
from tlsy.contracts.events import EVENTS_ACCEPTED
from tlsy.eventlog.delivery import Each
from tlsy.eventlog.errors import Fenced, TenantPaused
from tlsy.eventlog.fence import PartitionFence
from tlsy.eventlog.group_books import GroupBooks
from tlsy.eventlog.partition import PartitionSettings
from tlsy.eventlog.ports import TopicPartition
from tlsy.eventlog.statements import statements
from tlsy.tenancy.context import PLATFORM

PARTITION = TopicPartition(topic=TOPIC, partition=0)


class State:
    """Remembers what was assigned and revoked, in order."""

    def __init__(self):
        self.epochs = {}
        self.log = []

    async def on_assigned(self, partition, epoch):
        self.epochs[partition] = epoch
        self.log.append(("assigned", partition.partition))

    async def on_revoked(self, partition):
        self.epochs.pop(partition, None)
        self.log.append(("revoked", partition.partition))


@pytest.fixture
def books(world):
    return GroupBooks("rules_engine", GROUP, world.installation.tenancy("rules_engine"))


async def test_every_assignment_has_a_higher_epoch_whatever_its_partition(books):
    other = TopicPartition(topic=TOPIC, partition=1)
    epochs = [await books.take(partition) for partition in (PARTITION, PARTITION, other, PARTITION, other)]
    assert epochs == sorted(set(epochs))


@pytest.fixture
def tenancy(world):
    return world.installation.tenancy("rules_engine")


async def hold(fence, tx, epoch):
    await fence.hold(tx, epoch)


async def deliver(fence, tx, epoch):
    event = IDS()
    assert await fence.first_deliveries(tx, epoch, [event, event]) == {event}


async def test_epochs_and_what_was_applied_are_of_one_group(tenancy, tenant):
    event = IDS()
    for group, epoch in ((GROUP, 2), ("another", 1)):
        fence = PartitionFence("rules_engine", group)
        async with tenancy.transaction(tenant.context, write=True) as tx:
            assert await fence.first_deliveries(tx, epoch, [event]) == {event}


@pytest.mark.parametrize("passes", [hold, deliver])
async def test_a_lower_epoch_is_refused_once_a_higher_one_was_there(tenancy, tenant, passes):
    fence = PartitionFence("rules_engine", GROUP)
    for epoch in (1, 1, 2):
        async with tenancy.transaction(tenant.context, write=True) as tx:
            await passes(fence, tx, epoch)
    with pytest.raises(Fenced):
        async with tenancy.transaction(tenant.context, write=True) as tx:
            await passes(fence, tx, 1)


async def test_two_that_raise_the_fence_do_not_deadlock(tenancy, tenant):
    fence = PartitionFence("rules_engine", GROUP)
    async with tenancy.transaction(tenant.context, write=True) as tx:
        await fence.hold(tx, 1)
    raised = asyncio.Event()

    async def second():
        async with tenancy.transaction(tenant.context, write=True) as tx:
            # It has seen the fence of before, as the first one has.
            assert await tx.fetchval(fence._hold, tx.tenant_id, GROUP, 2) is None
            raised.set()
            await deliver(fence, tx, 2)

    async with tenancy.transaction(tenant.context, write=True) as tx:
        assert await tx.fetchval(fence._hold, tx.tenant_id, GROUP, 2) is None
        waiting = asyncio.create_task(second())
        await raised.wait()
        await fence.hold(tx, 2)
        await until(lambda: _blocked(tenancy, tenant))
    await waiting


@pytest.mark.parametrize("passes", [hold, deliver])
async def test_a_former_owner_waits_for_the_next_one_and_is_refused(tenancy, tenant, passes):
    fence = PartitionFence("rules_engine", GROUP)

    async def former_owner():
        async with tenancy.transaction(tenant.context, write=True) as tx:
            await passes(fence, tx, 1)

    await former_owner()
    async with tenancy.transaction(tenant.context, write=True) as tx:
        await fence.hold(tx, 2)
        waiting = asyncio.create_task(former_owner())
        await until(lambda: _blocked(tenancy, tenant))
    with pytest.raises(Fenced):
        await waiting


@pytest.mark.parametrize("passes", [hold, deliver])
async def test_the_next_owner_waits_for_a_transaction_that_passed(tenancy, tenant, passes):
    fence = PartitionFence("rules_engine", GROUP)
    async with tenancy.transaction(tenant.context, write=True) as tx:
        await fence.hold(tx, 1)

    async def next_owner():
        async with tenancy.transaction(tenant.context, write=True) as tx:
            await fence.hold(tx, 2)
            return await tx.fetchval("select count(*) from entries")

    async with tenancy.transaction(tenant.context, write=True) as tx:
        await passes(fence, tx, 1)
        waiting = asyncio.create_task(next_owner())
        await until(lambda: _blocked(tenancy, tenant))
        await tx.execute(
            "insert into entries (tenant_id, note, epoch) values ($1, 'in time', 1)", tx.tenant_id
        )
    assert await waiting == 1


async def _blocked(tenancy, tenant):
    async with tenancy.transaction(tenant.context, write=False) as tx:
        return await tx.fetchval("select exists (select from pg_locks where not granted)")


async def test_state_is_loaded_before_and_dropped_after(world, tenant):
    state = State()
    await world.send(event_of(tenant, "a"))
    consumer = await world.consuming(ownership=state)
    await world.noted(tenant, "a")
    assert len(state.epochs) == 4
    await consumer.stop(2.0)
    assert state.epochs == {}
    assert sorted(state.log[4:]) == [("revoked", n) for n in range(4)]


async def test_a_zombies_delivery_has_no_effect(world, tenancy, tenant):
    await world.send(event_of(tenant, "a"))
    zombie = await world.consuming(ownership=State())
    await world.noted(tenant, "a")
    async with tenancy.transaction(tenant.context, write=True) as tx:
        await PartitionFence("rules_engine", GROUP).hold(tx, 1_000)
    await world.send(event_of(tenant, "b"))

    async def let_go():
        return zombie._broken.is_set()

    await until(let_go)
    assert await world.entries(tenant) == ["a"]


async def test_a_former_owner_parks_nothing(world, tenant):
    """The next one, which looked before for what is parked, would not know of it."""
    begun, later = asyncio.Event(), asyncio.Event()

    async def late(delivery, tx):
        begun.set()
        await later.wait()
        raise TenantPaused("JUDGING_FAILED", "a defect of ours")

    log = SwappedLog()
    log.records = received(1, event_of(tenant, "a"))
    seldom = PartitionSettings(replay_s=600, replay_max_s=600)
    await world.consuming({EVENTS_ACCEPTED: Each(late)}, reader=log.reader, partition=seldom)
    await asyncio.wait_for(begun.wait(), 60)
    following = await world.consuming(reader=log.reader)
    await until(lambda: _works(following))
    later.set()
    await world.noted(tenant, "a")
    await until(lambda: _joined(log, 3))
    await parked(world, 0)


async def test_who_takes_a_partition_waits_for_what_is_being_parked(books, tenancy, tenant):
    epoch = await books.take(PARTITION)
    hold_assignment = statements("rules_engine")["hold_assignment"]
    async with tenancy.control(PLATFORM, write=True) as tx:
        assert await tx.fetchval(hold_assignment, TOPIC, GROUP, PARTITION.partition, epoch) == epoch
        taking = asyncio.create_task(books.take(PARTITION))
        await until(lambda: _blocked(tenancy, tenant))
    assert await taking > epoch


async def _works(consumer):
    return any(assigned.worker for assigned in consumer._assigned.values())


async def _joined(log, times):
    return log.joined == times


async def test_two_members_share_the_partitions_and_each_event_counts_once(world, installation):
    tenants = [await installation.provisioned_tenant() for _ in range(6)]
    await world.relaying()
    states = State(), State()
    await world.consuming(ownership=states[0])
    leaver = await world.consuming(ownership=states[1])
    await until(lambda: _shared(states))
    for number in range(3):
        for tenant in tenants:
            await world.publish(tenant, str(number))
    for tenant in tenants:
        await world.noted(tenant, "0", "1", "2")
    await leaver.stop(2.0)
    for tenant in tenants:
        await world.publish(tenant, "3")
    for tenant in tenants:
        await world.noted(tenant, "0", "1", "2", "3")


async def _shared(states):
    held = [set(state.epochs) for state in states]
    return all(held) and not held[0] & held[1] and len(held[0] | held[1]) == 4
