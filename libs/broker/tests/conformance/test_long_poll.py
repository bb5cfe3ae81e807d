from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from kio.schema.errors import ErrorCode
from kio.schema.fetch.v11.request import FetchPartition, FetchRequest, FetchTopic
from kio.static.primitive import i32, i32Timedelta, i64


def fetch_request(topic, *, partitions=(0,), max_wait_s, min_bytes=1, offset=0):
    return FetchRequest(
        max_wait=i32Timedelta.parse(timedelta(seconds=max_wait_s)),
        min_bytes=i32(min_bytes),
        topics=(
            FetchTopic(
                topic=topic,
                partitions=tuple(
                    FetchPartition(
                        partition=i32(index), fetch_offset=i64(offset), partition_max_bytes=i32(1_000_000)
                    )
                    for index in partitions
                ),
            ),
        ),
        forgotten_topics_data=(),
    )


def sizes(response):
    return [len(partition.records or b"") for topic in response.responses for partition in topic.partitions]


async def test_a_waiting_fetch_wakes_when_a_record_arrives(kafka, connect):
    topic = await kafka.create_topic(3)
    producer = await kafka.producer()
    client = await connect(kafka.address)
    waiting = asyncio.create_task(client.ask(fetch_request(topic, partitions=(0, 1, 2), max_wait_s=9)))
    await producer.send_and_wait(topic, b"warm-up of the connection", partition=1)
    sent = time.monotonic()
    response = await waiting
    assert time.monotonic() - sent < 8
    assert [size > 0 for size in sizes(response)] == [False, True, False]


async def test_a_fetch_of_nothing_waits_as_long_as_asked(kafka, connect):
    topic = await kafka.create_topic()
    client = await connect(kafka.address)
    begun = time.monotonic()
    response = await client.ask(fetch_request(topic, max_wait_s=0.5))
    assert sizes(response) == [0]
    assert 0.4 < time.monotonic() - begun < 8


async def test_a_fetch_that_wants_more_than_there_is_waits_and_then_gets_what_there_is(kafka, connect):
    topic = await kafka.create_topic()
    await kafka.send(topic, b"x")
    client = await connect(kafka.address)
    begun = time.monotonic()
    response = await client.ask(fetch_request(topic, max_wait_s=0.5, min_bytes=100_000))
    assert 0.4 < time.monotonic() - begun < 8
    assert sizes(response) > [0]


async def test_an_offset_out_of_range_is_told_without_waiting(kafka, connect):
    topic = await kafka.create_topic(2)
    client = await connect(kafka.address)
    begun = time.monotonic()
    response = await client.ask(fetch_request(topic, partitions=(0, 1), max_wait_s=9, offset=5))
    codes = {partition.error_code for partition in response.responses[0].partitions}
    assert codes == {ErrorCode.offset_out_of_range}
    assert time.monotonic() - begun < 8


async def test_the_deletion_of_a_topic_ends_the_wait_for_its_records(kafka, connect):
    topic = await kafka.create_topic(1)
    client = await connect(kafka.address)
    begun = time.monotonic()
    waiting = asyncio.create_task(client.ask(fetch_request(topic, max_wait_s=9)))
    done, _ = await asyncio.wait({waiting}, timeout=0.2)
    assert not done
    await (await kafka.admin()).delete_topics([topic])
    response = await waiting
    assert response.responses[0].partitions[0].error_code is not ErrorCode.none
    assert time.monotonic() - begun < 8


async def test_a_fetch_of_unknown_partitions_alone_does_not_wait(kafka, connect):
    topic = await kafka.create_topic(1)
    client = await connect(kafka.address)
    begun = time.monotonic()
    response = await client.ask(fetch_request(topic, partitions=(7,), max_wait_s=9))
    assert response.responses[0].partitions[0].error_code is ErrorCode.unknown_topic_or_partition
    assert time.monotonic() - begun < 8


async def test_an_acknowledged_send_takes_milliseconds(kafka):
    topic = await kafka.create_topic()
    producer = await kafka.producer(enable_idempotence=True)
    latencies_ms = []
    for _ in range(200):
        begun = time.perf_counter()
        await producer.send_and_wait(topic, b"x" * 200, partition=0)
        latencies_ms.append((time.perf_counter() - begun) * 1000)
    # The fastest tenth: what each is made to wait. The others wait for a processor too.
    assert sorted(latencies_ms)[20] < 20
