from __future__ import annotations

import asyncio
import os
import time

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import MessageSizeTooLargeError


async def test_key_value_headers_and_time_come_back_as_sent(kafka, read):
    topic = await kafka.create_topic()
    producer = await kafka.producer()
    headers = [("tenantid", b"\x00\xff"), ("empty", b""), ("tenantid", b"again")]
    await producer.send_and_wait(topic, b"value", key=b"key", headers=headers, timestamp_ms=1_700_000_000_123)
    (record,) = await read(await kafka.consumer(topic), 1)
    assert (record.key, record.value, record.timestamp) == (b"key", b"value", 1_700_000_000_123)
    assert list(record.headers) == headers


@pytest.mark.parametrize("compression", [None, "gzip"])
async def test_a_topic_may_give_records_the_broker_s_time(kafka, read, compression):
    topic = await kafka.create_topic(**{"message.timestamp.type": "LogAppendTime"})
    producer = await kafka.producer(compression_type=compression)
    await producer.send_and_wait(topic, b"value", timestamp_ms=1_000)
    (record,) = await read(await kafka.consumer(topic), 1)
    assert (record.value, record.timestamp_type) == (b"value", 1)
    assert abs(record.timestamp / 1000 - time.time()) < 60
    asked = TopicPartition(topic, 0)
    found = await (await kafka.consumer()).offsets_for_times({asked: record.timestamp})
    assert (found[asked].offset, found[asked].timestamp) == (0, record.timestamp)


async def test_absent_and_empty_are_not_confused(kafka, read):
    topic = await kafka.create_topic()
    producer = await kafka.producer()
    await producer.send_and_wait(topic, None, key=b"")
    await producer.send_and_wait(topic, b"", key=None)
    records = await read(await kafka.consumer(topic), 2)
    assert [(record.key, record.value) for record in records] == [(b"", None), (None, b"")]


async def test_offsets_are_dense_from_zero(kafka):
    topic = await kafka.create_topic()
    sent = await kafka.send(topic, *(b"%d" % number for number in range(50)))
    assert [metadata.offset for metadata in sent] == list(range(50))


@pytest.mark.parametrize("acks", [0, 1, "all"])
async def test_records_arrive_with_every_level_of_acknowledgement(kafka, read, acks):
    topic = await kafka.create_topic()
    await kafka.send(topic, b"1", b"2", b"3", acks=acks)
    records = await read(await kafka.consumer(topic), 3)
    assert [record.value for record in records] == [b"1", b"2", b"3"]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_compressed_records_come_back(kafka, read, codec):
    topic = await kafka.create_topic()
    values = [b"%d" % number * 100 for number in range(100)]
    await kafka.send(topic, *values, compression_type=codec, linger_ms=20)
    assert [record.value for record in await read(await kafka.consumer(topic), 100)] == values


async def test_a_record_of_almost_a_megabyte_comes_back(kafka, read):
    topic = await kafka.create_topic()
    value = os.urandom(1_000_000)
    await kafka.send(topic, value, max_request_size=2_000_000)
    assert [record.value for record in await read(await kafka.consumer(topic), 1)] == [value]


async def test_a_record_larger_than_one_fetch_allows_is_delivered_alone(kafka, read):
    topic = await kafka.create_topic()
    await kafka.send(topic, b"x" * 500_000, b"small", linger_ms=0)
    consumer = await kafka.consumer(topic, max_partition_fetch_bytes=1000, fetch_max_bytes=1000)
    assert [len(record.value) for record in await read(consumer, 2)] == [500_000, 5]


async def test_a_record_beyond_the_limit_is_refused(kafka, read):
    topic = await kafka.create_topic()
    producer = await kafka.producer(max_request_size=3_000_000)
    with pytest.raises(MessageSizeTooLargeError):
        await producer.send_and_wait(topic, os.urandom(1_100_000))
    await producer.send_and_wait(topic, b"small")
    assert [record.value for record in await read(await kafka.consumer(topic), 1)] == [b"small"]


async def test_concurrent_producers_keep_the_order_per_key(kafka, read):
    topic = await kafka.create_topic(3)

    async def produce(key):
        producer = await kafka.producer(enable_idempotence=True, linger_ms=1)
        for number in range(100):
            await producer.send(topic, b"%d" % number, key=key)
        await producer.flush()

    keys = [b"key-%d" % number for number in range(6)]
    await asyncio.gather(*(produce(key) for key in keys))
    records = await read(await kafka.consumer(topic), 600)
    for key in keys:
        assert [int(record.value) for record in records if record.key == key] == list(range(100))


async def test_a_fetch_reads_from_the_middle_of_a_batch(kafka, read):
    topic = await kafka.create_topic()
    await kafka.send(topic, *(b"%d" % number for number in range(10)), linger_ms=50)
    consumer = await kafka.reader_of(topic)
    (partition,) = consumer.assignment()
    consumer.seek(partition, 7)
    assert [record.value for record in await read(consumer, 3)] == [b"7", b"8", b"9"]
