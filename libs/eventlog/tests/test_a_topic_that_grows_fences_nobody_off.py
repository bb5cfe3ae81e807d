from __future__ import annotations

from functools import partial

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from libs.eventlog.tests.test_a_former_owner_cannot_commit import State
from libs.eventlog.tests.world import TOPIC, event_of, until
from tlsy.eventlog.kafka import partition_of
from tlsy.eventlog.ports import TopicPartition

FEW, MORE = 2, 4


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
