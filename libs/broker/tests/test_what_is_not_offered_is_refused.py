from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TransactionalIdAuthorizationFailed
from kio.schema.errors import ErrorCode
from kio.schema.find_coordinator.v2.request import FindCoordinatorRequest
from kio.schema.init_producer_id.v0 import InitProducerIdRequest
from kio.schema.join_group.v5.request import JoinGroupRequest, JoinGroupRequestProtocol
from kio.schema.offset_commit.v7.request import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from kio.schema.produce.v7.request import ProduceRequest
from kio.schema.sync_group.v3.request import SyncGroupRequest
from kio.schema.types import GroupId, TopicName, TransactionalId
from kio.static.primitive import i8, i16, i32, i32Timedelta, i64

from tlsy.broker.api import NO_THROTTLE
from tlsy.testkit.kafka import embedded_broker

INVALID_REPLICA_ASSIGNMENT = 39
INVALID_CONFIG = 40


@pytest.fixture
async def address():
    async with embedded_broker() as address:
        yield address


async def error_of_creating(address, topic):
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    response = await admin.create_topics([topic])
    await admin.close()
    return response.topic_errors[0][1]


async def test_a_transactional_producer_is_told_so_at_once(address):
    producer = AIOKafkaProducer(bootstrap_servers=address, transactional_id="any")
    with pytest.raises(TransactionalIdAuthorizationFailed):
        await asyncio.wait_for(producer.start(), 30)
    await producer.stop()


async def test_no_producer_id_is_given_for_a_transaction(address, connect):
    client = await connect(address)
    response = await client.ask(
        InitProducerIdRequest(transactional_id=TransactionalId.parse("any"), transaction_timeout=NO_THROTTLE)
    )
    assert response.error_code is ErrorCode.transactional_id_authorization_failed


async def test_nothing_is_stored_for_a_transaction(address, connect, batch, produce_request):
    client = await connect(address)
    assert await error_of_creating(address, NewTopic("topic", 1, 1)) == 0
    plain = produce_request("topic", batch(b"x"))
    request = ProduceRequest(
        transactional_id=TransactionalId.parse("any"),
        acks=i16(-1),
        timeout=plain.timeout,
        topic_data=plain.topic_data,
    )
    (topic,) = (await client.ask(request)).responses
    assert topic.partition_responses[0].error_code is ErrorCode.transactional_id_authorization_failed


async def test_there_is_no_coordinator_of_an_unknown_kind(address, connect):
    client = await connect(address)
    response = await client.ask(FindCoordinatorRequest(key="any", key_type=i8(2)))
    assert response.error_code is ErrorCode.invalid_request


async def test_a_timestamp_type_that_is_none_is_refused(address):
    topic = NewTopic("topic", 1, 1, topic_configs={"message.timestamp.type": "Whenever"})
    assert await error_of_creating(address, topic) == INVALID_CONFIG


async def test_compaction_is_refused(address):
    topic = NewTopic("topic", 1, 1, topic_configs={"cleanup.policy": "compact"})
    assert await error_of_creating(address, topic) == INVALID_CONFIG


async def test_an_assignment_of_replicas_is_refused(address):
    topic = NewTopic("topic", -1, -1, replica_assignments={0: [1]})
    assert await error_of_creating(address, topic) == INVALID_REPLICA_ASSIGNMENT


async def test_static_membership_is_refused(address, connect):
    client = await connect(address)
    assert await error_of_creating(address, NewTopic("topic", 1, 1)) == 0
    timeout = i32Timedelta.parse(timedelta(seconds=10))
    partition = OffsetCommitRequestPartition(
        partition_index=i32(0), committed_offset=i64(0), committed_metadata=None
    )
    joined = await client.ask(
        JoinGroupRequest(
            group_id=GroupId.parse("group"),
            session_timeout=timeout,
            rebalance_timeout=timeout,
            member_id="",
            group_instance_id="static",
            protocol_type="consumer",
            protocols=(JoinGroupRequestProtocol(name="range", metadata=b""),),
        )
    )
    synced = await client.ask(
        SyncGroupRequest(
            group_id=GroupId.parse("group"),
            generation_id=i32(1),
            member_id="",
            group_instance_id="static",
            assignments=(),
        )
    )
    committed = await client.ask(
        OffsetCommitRequest(
            group_id=GroupId.parse("group"),
            member_id="",
            group_instance_id="static",
            topics=(OffsetCommitRequestTopic(name=TopicName.parse("topic"), partitions=(partition,)),),
        )
    )
    errors = {joined.error_code, synced.error_code, committed.topics[0].partitions[0].error_code}
    assert errors == {ErrorCode.unsupported_version}
