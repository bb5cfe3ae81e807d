from __future__ import annotations

import asyncio

import pytest
from aiokafka.admin import NewPartitions, NewTopic
from aiokafka.errors import InvalidPartitionsError, UnknownTopicOrPartitionError

TOPIC_ALREADY_EXISTS = 36
INVALID_TOPIC = 17
INVALID_PARTITIONS = 37
INVALID_REPLICATION_FACTOR = 38
UNKNOWN_TOPIC = 3


async def partitions_of(kafka, topic):
    (described,) = await (await kafka.admin()).describe_topics([topic])
    return described["error_code"], len(described["partitions"])


async def error_of_creating(kafka, *new_topic):
    response = await (await kafka.admin()).create_topics([NewTopic(*new_topic)])
    return response.topic_errors[0][1]


async def test_a_created_topic_has_its_partitions(kafka):
    assert await partitions_of(kafka, await kafka.create_topic(3)) == (0, 3)


async def test_creating_a_topic_twice_is_refused(kafka):
    topic = await kafka.create_topic(3)
    assert await error_of_creating(kafka, topic, 3, 1) == TOPIC_ALREADY_EXISTS


@pytest.mark.parametrize("name", [".", "..", "a b", "é", "x" * 250])
async def test_a_name_outside_the_rules_is_refused(kafka, name):
    assert await error_of_creating(kafka, name, 1, 1) == INVALID_TOPIC


async def test_a_topic_without_partitions_is_refused(kafka):
    assert await error_of_creating(kafka, "no-partitions", 0, 1) == INVALID_PARTITIONS


async def test_more_replicas_than_brokers_are_refused(kafka):
    assert await error_of_creating(kafka, "two-replicas", 1, 2) == INVALID_REPLICATION_FACTOR


async def test_an_unknown_topic_is_an_error_and_is_not_created(kafka):
    assert await partitions_of(kafka, "never-created") == (UNKNOWN_TOPIC, 0)
    assert "never-created" not in await (await kafka.admin()).list_topics()


async def test_sending_to_an_unknown_topic_fails(kafka):
    producer = await kafka.producer(request_timeout_ms=1000)
    with pytest.raises((UnknownTopicOrPartitionError, asyncio.TimeoutError)):
        await asyncio.wait_for(producer.send_and_wait("never-created", b"x"), 2)


async def test_a_deleted_topic_is_gone_and_begins_anew_when_created_again(kafka, eventually):
    topic = await kafka.create_topic()
    await kafka.send(topic, b"old")
    admin = await kafka.admin()
    await admin.delete_topics([topic])

    async def is_gone():
        return await partitions_of(kafka, topic) == (UNKNOWN_TOPIC, 0)

    await eventually(is_gone)
    await kafka.create_topic(name=topic)
    assert (await kafka.send(topic, b"new"))[0].offset == 0


async def test_a_topic_grows_and_does_not_shrink(kafka):
    topic = await kafka.create_topic(1)
    admin = await kafka.admin()
    await admin.create_partitions({topic: NewPartitions(total_count=4)})
    with pytest.raises(InvalidPartitionsError):
        await admin.create_partitions({topic: NewPartitions(total_count=2)})
    assert await partitions_of(kafka, topic) == (0, 4)


async def test_a_hundred_topics_are_written_and_read_together(kafka, read):
    admin = await kafka.admin()
    prefix = await kafka.create_topic()
    topics = [f"{prefix}-{number}" for number in range(100)]
    await admin.create_topics([NewTopic(topic, 1, 1) for topic in topics])
    producer = await kafka.producer()
    for topic in topics:
        await producer.send(topic, topic.encode())
    await producer.flush()
    records = await read(await kafka.consumer(*topics), 100)
    assert sorted(record.value.decode() for record in records) == sorted(topics)
    await admin.delete_topics(topics)
