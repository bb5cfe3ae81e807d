from __future__ import annotations

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from tlsy.broker import BrokerSettings
from tlsy.testkit.kafka import embedded_broker

PLACE = TopicPartition("small", 0)


@pytest.fixture
async def address():
    settings = BrokerSettings(
        max_message_bytes=10_000,
        max_partition_bytes=50_000,
        max_total_bytes=50_000,
        auto_create_topics=True,
    )
    async with embedded_broker(settings) as address:
        producer = AIOKafkaProducer(bootstrap_servers=address)
        await producer.start()
        for _ in range(30):
            await producer.send_and_wait("small", b"x" * 5_000, partition=0)
        await producer.stop()
        yield address


@pytest.fixture
async def consumer(address):
    consumer = AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="none")
    await consumer.start()
    consumer.assign([PLACE])
    yield consumer
    await consumer.stop()


async def test_the_beginning_moves_and_the_end_does_not(consumer):
    beginning = (await consumer.beginning_offsets([PLACE]))[PLACE]
    assert 15 < beginning < 30
    assert await consumer.end_offsets([PLACE]) == {PLACE: 30}
    consumer.seek(PLACE, beginning)
    assert (await consumer.getone()).offset == beginning


async def test_reading_what_was_dropped_is_out_of_range(consumer):
    consumer.seek(PLACE, 0)
    with pytest.raises(OffsetOutOfRangeError):
        await consumer.getone()
