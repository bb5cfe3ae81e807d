from __future__ import annotations

import asyncio
import uuid

import pytest
from aiokafka import TopicPartition
from kio.schema.errors import ErrorCode
from kio.schema.heartbeat.v3 import HeartbeatRequest
from kio.schema.offset_commit.v7.request import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from kio.static.primitive import i32, i64


@pytest.fixture
def group():
    return f"group-{uuid.uuid4()}"


def commit_request(group, topic, *, generation, member, partition=0, note=None):
    partition = OffsetCommitRequestPartition(
        partition_index=i32(partition), committed_offset=i64(1), committed_metadata=note
    )
    return OffsetCommitRequest(
        group_id=group,
        generation_id_or_member_epoch=i32(generation),
        member_id=member,
        topics=(OffsetCommitRequestTopic(name=topic, partitions=(partition,)),),
    )


async def commit_error(client, request):
    response = await client.ask(request)
    return response.topics[0].partitions[0].error_code


def share(*consumers):
    return sorted(len(consumer.assignment()) for consumer in consumers)


async def test_two_members_share_the_partitions(kafka, group, read, eventually):
    topic = await kafka.create_topic(4)
    one = await kafka.consumer(topic, group_id=group)
    assert share(one) == [4]
    two = await kafka.consumer(topic, group_id=group)
    await eventually(lambda: share(one, two) == [2, 2])
    assert one.assignment().isdisjoint(two.assignment())


async def test_every_record_is_read_by_one_member(kafka, group, read, eventually):
    topic = await kafka.create_topic(4)
    one, two = [await kafka.consumer(topic, group_id=group) for _ in range(2)]
    await eventually(lambda: share(one, two) == [2, 2])
    for partition in range(4):
        await kafka.send(topic, b"%d" % partition, partition=partition)
    parts = await asyncio.gather(read(one, 2), read(two, 2))
    assert sorted(record.value for part in parts for record in part) == [b"0", b"1", b"2", b"3"]


async def test_the_part_of_a_member_that_leaves_goes_to_the_others(kafka, group, eventually):
    topic = await kafka.create_topic(4)
    one, two = [await kafka.consumer(topic, group_id=group) for _ in range(2)]
    await eventually(lambda: share(one, two) == [2, 2])
    await two.stop()
    await eventually(lambda: share(one) == [4])


async def test_the_part_of_a_crashed_member_is_taken_over_after_its_session(kafka, group, read, eventually):
    topic = await kafka.create_topic(2)
    crashing = await kafka.consumer(topic, group_id=group, session_timeout_ms=1500)
    heir = await kafka.consumer(topic, group_id=group, session_timeout_ms=1500)
    coordinator = crashing._coordinator
    # Before its heartbeat runs a member is still joining, and the client then swallows the end of its task.
    await eventually(lambda: share(crashing, heir) == [1, 1] and coordinator._heartbeat_task is not None)
    coordinator._coordination_task.cancel()
    coordinator._heartbeat_task.cancel()
    await eventually(coordinator._coordination_task.done)
    await eventually(lambda: share(heir) == [2])
    for partition in (0, 1):
        await kafka.send(topic, b"%d" % partition, partition=partition)
    assert len(await read(heir, 2)) == 2


async def test_a_new_member_resumes_from_the_commit(kafka, group, read):
    topic = await kafka.create_topic()
    await kafka.send(topic, b"1", b"2", b"3")
    first = await kafka.consumer(topic, group_id=group)
    await read(first, 3)
    await first.commit({TopicPartition(topic, 0): 2})
    await first.stop()
    second = await kafka.consumer(topic, group_id=group)
    assert [record.value for record in await read(second, 1)] == [b"3"]


async def test_a_commit_with_its_note_outlives_all_members(kafka, group):
    topic = await kafka.create_topic()
    place = TopicPartition(topic, 0)
    await kafka.send(topic, b"1")
    consumer = await kafka.consumer(topic, group_id=group)
    await consumer.commit({place: (1, "a note")})
    await consumer.stop()
    offsets = await (await kafka.admin()).list_consumer_group_offsets(group)
    assert offsets == {place: (1, "a note")}


async def test_without_a_commit_there_is_no_offset(kafka, group):
    topic = await kafka.create_topic()
    consumer = await kafka.consumer(topic, group_id=group)
    assert await consumer.committed(TopicPartition(topic, 0)) is None


async def test_a_commit_of_an_older_generation_is_refused(kafka, group, connect):
    topic = await kafka.create_topic()
    consumer = await kafka.consumer(topic, group_id=group)
    coordinator = consumer._coordinator
    client = await connect(kafka.address)
    stale = commit_request(group, topic, generation=coordinator.generation - 1, member=coordinator.member_id)
    current = commit_request(group, topic, generation=coordinator.generation, member=coordinator.member_id)
    assert await commit_error(client, stale) is ErrorCode.illegal_generation
    assert await commit_error(client, current) is ErrorCode.none


async def test_a_commit_of_a_stranger_is_refused_while_there_are_members(kafka, group, connect):
    topic = await kafka.create_topic()
    await kafka.consumer(topic, group_id=group)
    client = await connect(kafka.address)
    for generation, member in ((1, "stranger"), (-1, "")):
        request = commit_request(group, topic, generation=generation, member=member)
        assert await commit_error(client, request) is ErrorCode.unknown_member_id


async def test_a_client_without_membership_commits_for_an_empty_group(kafka, group, connect):
    topic = await kafka.create_topic()
    client = await connect(kafka.address)
    request = commit_request(group, topic, generation=-1, member="")
    assert await commit_error(client, request) is ErrorCode.none


async def test_a_commit_with_a_generation_does_not_begin_a_group(kafka, group, connect):
    topic = await kafka.create_topic()
    client = await connect(kafka.address)
    request = commit_request(group, topic, generation=1, member="member")
    assert await commit_error(client, request) in {ErrorCode.illegal_generation, ErrorCode.unknown_member_id}


async def test_a_commit_in_an_unknown_partition_is_refused(kafka, group, connect):
    topic = await kafka.create_topic(1)
    client = await connect(kafka.address)
    request = commit_request(group, topic, generation=-1, member="", partition=1)
    assert await commit_error(client, request) is ErrorCode.unknown_topic_or_partition


async def test_a_commit_with_a_note_too_long_is_refused(kafka, group, connect):
    topic = await kafka.create_topic()
    client = await connect(kafka.address)
    request = commit_request(group, topic, generation=-1, member="", note="x" * 4097)
    assert await commit_error(client, request) is ErrorCode.offset_metadata_too_large


async def test_a_session_timeout_out_of_bounds_is_refused(kafka, group, connect, join_request):
    await kafka.create_topic()
    client = await connect(kafka.address)
    for timeout_s in (0.5, 100_000):
        response = await client.ask(join_request(group, timeout_s=timeout_s))
        assert response.error_code is ErrorCode.invalid_session_timeout


async def test_a_heartbeat_of_a_stranger_is_refused(kafka, group, connect):
    topic = await kafka.create_topic()
    await kafka.consumer(topic, group_id=group)
    client = await connect(kafka.address)
    response = await client.ask(HeartbeatRequest(group_id=group, generation_id=i32(1), member_id="stranger"))
    assert response.error_code is ErrorCode.unknown_member_id


async def test_a_group_is_listed_and_described_with_its_members(kafka, group):
    topic = await kafka.create_topic()
    await kafka.consumer(topic, group_id=group, client_id="the-member")
    admin = await kafka.admin()
    assert (group, "consumer") in await admin.list_consumer_groups()
    (response,) = await admin.describe_consumer_groups([group])
    error, name, state, protocol_type, _, members = response.groups[0][:6]
    assert (error, name, state, protocol_type) == (0, group, "Stable", "consumer")
    assert [member[1] for member in members] == ["the-member"]
