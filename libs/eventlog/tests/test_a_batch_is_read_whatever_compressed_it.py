"""Producers choose a codec, and clients write one codec differently: librdkafka's snappy has no blocks."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Producer

from libs.eventlog.tests.test_a_broadcast_misses_nothing import Copy
from libs.eventlog.tests.world import TOPIC, event_of
from tlsy.eventlog.cloudevents import to_headers
from tlsy.eventlog.kafka import partition_of

CODECS = ["gzip", "snappy", "lz4", "zstd"]
#: Together more than a block of snappy holds.
NOTES = [f"{number:020000}" for number in range(4)]


async def by_aiokafka(servers, codec, events):
    producer = AIOKafkaProducer(
        bootstrap_servers=servers, compression_type=codec, linger_ms=20, max_batch_size=1_000_000
    )
    await producer.start()
    try:
        for event in events:
            key, headers = event.key.encode(), [*to_headers(event, log=1)]
            await producer.send(TOPIC, event.data, key, partition_of(key, 4), headers=headers)
    finally:
        await producer.stop()


async def by_librdkafka(servers, codec, events):
    producer = Producer({"bootstrap.servers": servers, "compression.type": codec, "linger.ms": 20})
    for event in events:
        key = event.key.encode()
        producer.produce(TOPIC, event.data, key, partition_of(key, 4), headers=[*to_headers(event, log=1)])
    assert await asyncio.to_thread(producer.flush, 15) == 0


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("send", [by_aiokafka, by_librdkafka])
async def test_a_group_reads_it(world, tenant, send, codec):
    await world.inspector().ensure_topics({TOPIC: 4})
    await send(world.servers, codec, [event_of(tenant, note) for note in NOTES])
    await world.consuming()
    await world.noted(tenant, *NOTES)


@pytest.mark.parametrize("codec", CODECS)
async def test_a_copy_in_memory_reads_it(world, tenant, codec):
    copy = Copy(world)
    await world.inspector().ensure_topics({TOPIC: 4})
    world.components.append(broadcast := copy.broadcast())
    await broadcast.start()
    await broadcast.complete()
    await by_aiokafka(world.servers, codec, [event_of(tenant, note) for note in NOTES])
    await copy.has(*NOTES)
    assert copy.snapshots == 1
