from __future__ import annotations

import asyncio

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tlsy.testkit.kafka import embedded_broker

DEADLINE_S = 60


def create_topic(address):
    admin = AdminClient({"bootstrap.servers": address})
    (created,) = admin.create_topics([NewTopic("topic", 1, 1)]).values()
    created.result(DEADLINE_S)


def send(address, codec, count):
    failures = []
    producer = Producer(
        {"bootstrap.servers": address, "enable.idempotence": True, "compression.type": codec, "linger.ms": 20}
    )
    for number in range(count):
        producer.produce(
            "topic",
            b"%d" % number * 50,
            on_delivery=lambda error, _: failures.append(error) if error else None,
        )
    assert producer.flush(DEADLINE_S) == 0
    assert failures == []


def read_and_commit(address, count):
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "group",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe(["topic"])
    try:
        messages = consumer.consume(count, DEADLINE_S)
        consumer.commit(asynchronous=False)
        committed = consumer.committed([TopicPartition("topic", 0)], DEADLINE_S)
    finally:
        consumer.close()
    return [message.value() for message in messages], committed[0].offset


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_it_sends_with_every_compression_and_reads_in_a_group(codec):
    async with embedded_broker() as address:
        await asyncio.to_thread(create_topic, address)
        await asyncio.to_thread(send, address, codec, 100)
        values, committed = await asyncio.to_thread(read_and_commit, address, 100)
    assert values == [b"%d" % number * 50 for number in range(100)]
    assert committed == 100
