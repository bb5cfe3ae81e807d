from __future__ import annotations

from typing import TYPE_CHECKING

from kio.schema.errors import ErrorCode
from kio.schema.metadata.v8 import MetadataRequest, MetadataResponse
from kio.schema.metadata.v8.response import (
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from kio.schema.types import BrokerId, TopicName
from kio.static.primitive import i32

from tlsy.broker.api import NO_THROTTLE, NODE_ID, Caller
from tlsy.broker.batch import LEADER_EPOCH
from tlsy.broker.topics import TopicError, TopicStore, check_name

if TYPE_CHECKING:
    from tlsy.broker.settings import BrokerSettings


async def metadata(
    topics: TopicStore, settings: BrokerSettings, cluster_id: str, request: MetadataRequest, caller: Caller
) -> MetadataResponse:
    """Describe the broker, by the address the client used, and the topics asked for, each once.

    A name takes three bytes of a request, and what is told of it may be thousands of partitions.
    """
    wants_all = request.topics is None or (caller.api_version == 0 and not request.topics)
    names = topics.names() if wants_all else tuple(dict.fromkeys(each.name for each in request.topics or ()))
    creates = settings.auto_create_topics and request.allow_auto_topic_creation and not wants_all
    return MetadataResponse(
        throttle_time=NO_THROTTLE,
        brokers=(
            MetadataResponseBroker(
                node_id=BrokerId(NODE_ID), host=caller.broker_host, port=i32(caller.broker_port)
            ),
        ),
        cluster_id=cluster_id,
        controller_id=BrokerId(NODE_ID),
        topics=tuple(_describe(topics, settings, name, creates=creates) for name in names),
    )


def _describe(
    topics: TopicStore, settings: BrokerSettings, name: str, *, creates: bool
) -> MetadataResponseTopic:
    error = ErrorCode.none
    partitions = topics.partitions(name)
    if not partitions:
        try:
            check_name(name)
            if creates:
                topics.create(name, settings.default_partitions)
                partitions = topics.partitions(name)
            else:
                error = ErrorCode.unknown_topic_or_partition
        except TopicError as refusal:
            error = refusal.code
    return MetadataResponseTopic(
        error_code=error,
        name=TopicName(name),
        partitions=tuple(
            MetadataResponsePartition(
                error_code=ErrorCode.none,
                partition_index=i32(index),
                leader_id=BrokerId(NODE_ID),
                leader_epoch=i32(LEADER_EPOCH),
                replica_nodes=(BrokerId(NODE_ID),),
                isr_nodes=(BrokerId(NODE_ID),),
            )
            for index in range(len(partitions))
        ),
    )
