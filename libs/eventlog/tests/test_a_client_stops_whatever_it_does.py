from __future__ import annotations

import asyncio
from collections import Counter

import aiokafka
import pytest

from libs.eventlog.tests.world import CLOCK, GROUP, TOPIC, until
from tlsy.eventlog.kafka import KafkaInspector, KafkaProducer, stop_consumer
from tlsy.eventlog.kafka_readers import KafkaGroupReader, KafkaTail
from tlsy.eventlog.ports import Record
from tlsy.runtime.brokers import Brokers

_ROUTINES = frozenset(
    {
        "_coordination_routine",
        "_heartbeat_routine",
        "_fetch_requests_routine",
        "_md_synchronizer",
        "_sender_routine",
    }
)
_RECORD = Record(topic=TOPIC, key=b"k", value=b"v", headers=(), time=CLOCK.now())


async def test_who_stops_a_client_that_waits_for_its_broker_is_not_cancelled_with_its_fetch(
    world, broker, caplog
):
    await world.inspector().ensure_topics({TOPIC: 4})
    client = aiokafka.AIOKafkaConsumer(bootstrap_servers=broker.address, retry_backoff_ms=60_000)
    await client.start()
    partition = aiokafka.TopicPartition(TOPIC, 0)
    client.assign([partition])
    client.seek(partition, 0)
    await client.getmany(timeout_ms=200)
    await broker.stop()

    async def waits():
        return "Failed fetch messages" in caplog.text

    await until(waits)
    async with asyncio.timeout(30):
        await stop_consumer(client)
    await broker.start()


class Unhurried(aiokafka.ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Lets the group wait for it whenever its partitions are dealt anew."""

    def __init__(self):
        self.waits = asyncio.Event()

    async def on_partitions_assigned(self, assigned):
        pass

    async def on_partitions_revoked(self, revoked):
        if revoked:
            self.waits.set()
            await asyncio.Event().wait()


def routines():
    """What runs in this process for clients of aiokafka, as long as they live."""
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return Counter(name for name in names if name.rpartition(".")[2] in _ROUTINES)


async def ignore(partitions):
    pass


@pytest.mark.parametrize("was_in", [True, False])
async def test_a_member_that_stops_while_its_group_waits_for_another_leaves_nothing_behind(world, was_in):
    await world.inspector().ensure_topics({TOPIC: 4})
    alone = routines()
    reader = KafkaGroupReader(world.brokers, GROUP, [TOPIC], "test")
    joins = asyncio.Event()

    async def join_again(partitions):
        joins.set()

    if was_in:
        await reader.start(ignore, join_again)
    unhurried = Unhurried()
    other = aiokafka.AIOKafkaConsumer(bootstrap_servers=world.servers, group_id=GROUP)
    other.subscribe([TOPIC], listener=unhurried)
    await other.start()
    joins.clear()
    late = KafkaGroupReader(world.brokers, GROUP, [TOPIC], "test") if was_in else reader
    joining = asyncio.create_task(late.start(ignore, ignore))
    await asyncio.wait_for(unhurried.waits.wait(), 30)
    if was_in:
        await asyncio.wait_for(joins.wait(), 30)
    joining.cancel()
    await asyncio.wait({joining})
    async with asyncio.timeout(30):
        await reader.stop()
        await late.stop()
        await stop_consumer(other)
    assert routines() == alone


async def test_a_producer_that_stops_with_records_that_nobody_takes_leaves_nothing_behind(broker):
    inspector = KafkaInspector(Brokers(broker.address), "test")
    await inspector.ensure_topics({TOPIC: 4})
    await inspector.stop()
    alone = routines()
    producer = KafkaProducer(Brokers(broker.address), "test")
    assert None not in await producer.publish([_RECORD], timeout_s=20)
    await broker.stop()
    publishing = asyncio.create_task(producer.publish([_RECORD], timeout_s=20))

    async def is_held():
        return producer._client._message_accumulator._batches

    await until(is_held)
    publishing.cancel()
    await asyncio.wait({publishing})
    async with asyncio.timeout(30):
        await producer.stop()
    assert routines() == alone
    await broker.start()


async def cancelled_once(closing, has_begun):
    """As whoever stops it does at the end of the grace: once, while it closes."""
    task = asyncio.create_task(closing)
    async with asyncio.timeout(30):
        while not has_begun():
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        await asyncio.wait({task})


async def test_an_inspector_that_is_cancelled_while_it_closes_leaves_nothing_behind(world):
    alone = routines()
    inspector = KafkaInspector(world.brokers, "test")
    await inspector.ensure_topics({TOPIC: 4})
    await cancelled_once(inspector.stop(), lambda: inspector._consumer is None)
    assert routines() == alone


async def test_a_tail_that_is_cancelled_while_it_closes_leaves_nothing_behind(world):
    await world.inspector().ensure_topics({TOPIC: 4})
    alone = routines()
    tail = KafkaTail(world.brokers, [TOPIC], "test")
    await tail.open()
    await cancelled_once(tail.close(), lambda: tail._inspector._consumer is None)
    assert routines() == alone


async def test_a_producer_that_is_cancelled_while_it_is_thrown_away_leaves_nothing_behind(world):
    await world.inspector().ensure_topics({TOPIC: 4})
    alone = routines()
    producer = KafkaProducer(world.brokers, "test")
    await producer.publish([_RECORD], timeout_s=20)
    client = producer._client
    await cancelled_once(producer._discard(client), lambda: producer._client is None)
    assert routines() == alone
    assert client._closed
