from __future__ import annotations

import asyncio
from functools import partial

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from libs.eventlog.tests.test_a_former_owner_cannot_commit import State
from libs.eventlog.tests.world import TOPIC, event_of, note_down, until
from tlsy.contracts.events import EVENTS_ACCEPTED
from tlsy.eventlog.delivery import Each
from tlsy.eventlog.kafka import partition_of
from tlsy.eventlog.ports import TopicPartition

FEW, MORE = 2, 4
BACKLOG = [f"a{number:02}" for number in range(40)]


class Held:
    """The ledger's handler, held up at the first record of the backlog."""

    def __init__(self):
        self.begun, self.on = asyncio.Event(), asyncio.Event()
        self.routes = {EVENTS_ACCEPTED: Each(self._handle)}

    async def _handle(self, delivery, tx):
        if delivery.message.events[0].id == BACKLOG[0]:
            self.begun.set()
            await self.on.wait()
        await note_down(delivery, tx)


@pytest.fixture
async def mover(installation):
    """A tenant whose records go to a new partition once there are more."""
    while True:
        tenant = await installation.provisioned_tenant()
        if partition_of(tenant.tenant_id.hex.encode(), MORE) >= FEW:
            return tenant


async def grow(world):
    admin = AIOKafkaAdminClient(bootstrap_servers=world.servers)
    await admin.start()
    await admin.create_partitions({TOPIC: NewPartitions(MORE)})
    await admin.close()


async def test_a_tenant_goes_on_in_the_partition_that_it_moves_to(world, mover, log_lines):
    await world.inspector().ensure_topics({TOPIC: FEW})
    for note in ("a", "b", "c"):
        state = State()
        consumer = await world.consuming(ownership=state)
        await world.send(event_of(mover, note))
        await until(partial(_noted, world, mover, note))
        if note != "c":
            await consumer.stop(2.0)
    await grow(world)
    await until(lambda: _owned(state))
    await world.send(event_of(mover, "d"))
    await world.noted(mover, "a", "b", "c", "d")
    assert "FENCED" not in log_lines.text


async def _noted(world, tenant, note):
    return note in await world.entries(tenant)


async def _owned(state):
    return state.epochs.keys() == {TopicPartition(topic=TOPIC, partition=n) for n in range(MORE)}


async def _decided(world, tenant, note, log_lines, *, since=0):
    return "partition is new" in log_lines.text[since:] or await _noted(world, tenant, note)


async def test_what_the_old_partition_holds_comes_first_and_nobody_is_fenced_off(world, mover, log_lines):
    await world.inspector().ensure_topics({TOPIC: FEW})
    await world.send(*(event_of(mover, note) for note in BACKLOG))
    held = Held()
    for _ in range(2):
        await world.consuming(held.routes, ownership=State())
    await asyncio.wait_for(held.begun.wait(), 60)
    await grow(world)
    await world.send(event_of(mover, "b"))
    await until(partial(_decided, world, mover, "b", log_lines))
    held.on.set()
    await world.noted(mover, *BACKLOG, "b")
    assert "FENCED" not in log_lines.text


async def test_it_waits_in_whatever_process_follows(world, mover, log_lines):
    await world.inspector().ensure_topics({TOPIC: FEW})
    await world.send(*(event_of(mover, note) for note in BACKLOG))
    held = Held()
    first = await world.consuming(held.routes, ownership=State())
    await asyncio.wait_for(held.begun.wait(), 60)
    await grow(world)
    await world.send(event_of(mover, "b"))
    await until(partial(_decided, world, mover, "b", log_lines))
    await first.stop(0.1)
    since = len(log_lines.text)
    await world.consuming(held.routes, ownership=State())
    await until(partial(_decided, world, mover, "b", log_lines, since=since))
    held.on.set()
    await world.noted(mover, *BACKLOG, "b")
