from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from kio.schema.describe_groups.v4.request import DescribeGroupsRequest
from kio.schema.errors import ErrorCode
from kio.schema.list_offsets.v5.request import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from kio.schema.metadata.v8.request import MetadataRequest, MetadataRequestTopic
from kio.schema.types import BrokerId, GroupId, TopicName
from kio.static.primitive import i8, i32, i64

from tlsy.broker import BrokerSettings
from tlsy.broker.api import Caller
from tlsy.broker.handlers.fetch import fetch
from tlsy.broker.topics import TopicStore
from tlsy.testkit.kafka import embedded_broker

CALLER = Caller(client_id="", client_host="", broker_host="", broker_port=0, api_version=11)


@pytest.fixture
async def address(connect):
    settings = BrokerSettings(
        max_fetch_bytes=25_000, max_fetch_wait_s=0.3, max_rebalance_timeout_s=0.3, auto_create_topics=True
    )
    async with embedded_broker(settings) as address:
        yield address


def metadata_request(name, *, creates):
    return MetadataRequest(
        topics=(MetadataRequestTopic(name=name),),
        allow_auto_topic_creation=creates,
        include_cluster_authorized_operations=False,
        include_topic_authorized_operations=False,
    )


async def test_one_response_has_no_more_records_than_the_broker_allows(
    address, connect, batch, produce_request, long_poll
):
    client = await connect(address)
    await client.ask(metadata_request("topic", creates=True))
    for _ in range(5):
        await client.ask(produce_request("topic", batch(b"x" * 10_000)))
    response = await client.ask(long_poll("topic", max_wait_s=0))
    assert 20_000 < len(response.responses[0].partitions[0].records) <= 25_000


async def test_a_topic_that_is_asked_for_many_times_is_described_once(address, connect):
    client = await connect(address)
    request = metadata_request("topic", creates=True)
    response = await client.ask(replace(request, topics=request.topics * 50))
    assert [topic.name for topic in response.topics] == ["topic"]


async def test_a_group_that_is_asked_for_many_times_is_described_once(address, connect, join_request):
    client = await connect(address)
    await client.ask(join_request("group", timeout_s=30))
    names = (GroupId.parse("group"), GroupId.parse("other"))
    response = await client.ask(DescribeGroupsRequest(groups=names * 50, include_authorized_operations=False))
    assert [group.group_id for group in response.groups] == ["group", "other"]


async def test_offsets_of_a_partition_that_is_asked_for_twice_are_not_looked_for(address, connect):
    client = await connect(address)
    await client.ask(metadata_request("topic", creates=True))
    partition = ListOffsetsPartition(partition_index=i32(0), timestamp=i64(0))
    topic = ListOffsetsTopic(name=TopicName.parse("topic"), partitions=(partition,))
    for topics, error in (((topic,), ErrorCode.none), ((topic, topic), ErrorCode.invalid_request)):
        request = ListOffsetsRequest(replica_id=BrokerId(-1), isolation_level=i8(0), topics=topics)
        response = await client.ask(request)
        assert {told.partitions[0].error_code for told in response.topics} == {error}


async def test_a_long_poll_is_no_longer_than_the_broker_allows(address, connect, long_poll):
    client = await connect(address)
    await client.ask(metadata_request("topic", creates=True))
    begun = time.monotonic()
    await client.ask(long_poll("topic", max_wait_s=9))
    assert time.monotonic() - begun < 8


@pytest.mark.parametrize("cancels", [False, True])
async def test_a_long_poll_that_is_over_listens_no_longer(long_poll, cancels):
    settings = BrokerSettings()
    topics = TopicStore(settings)
    topics.create("topic", 1)
    partition = topics.partition("topic", 0)
    assert partition is not None
    waiting = asyncio.create_task(fetch(topics, settings, long_poll("topic", max_wait_s=1), CALLER))
    await asyncio.wait({waiting}, timeout=0.02)
    assert len(partition.listeners) == 1
    if cancels:
        waiting.cancel()
    await asyncio.wait({waiting})
    assert partition.listeners == set()


async def test_a_fetch_session_is_not_known(address, connect, long_poll):
    client = await connect(address)
    response = await client.ask(replace(long_poll("topic", max_wait_s=0), session_id=i32(7)))
    assert response.error_code is ErrorCode.fetch_session_id_not_found


async def test_a_rebalance_waits_no_longer_than_the_broker_allows(address, connect, join_request):
    leader, follower = await connect(address), await connect(address)
    await leader.ask(join_request("group", timeout_s=30))
    begun = time.monotonic()
    joined = await follower.ask(join_request("group", timeout_s=30))
    assert (joined.error_code, joined.generation_id) == (ErrorCode.none, 2)
    assert time.monotonic() - begun < 8


async def test_a_topic_is_created_by_asking_only_if_the_client_wants_it(address, connect):
    client = await connect(address)
    errors = []
    for creates in (False, True, False):
        response = await client.ask(metadata_request("topic", creates=creates))
        errors.append(response.topics[0].error_code)
    assert errors == [ErrorCode.unknown_topic_or_partition, ErrorCode.none, ErrorCode.none]
