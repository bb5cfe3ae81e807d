from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from kio.schema.errors import ErrorCode
from kio.schema.list_offsets.v5 import ListOffsetsRequest, ListOffsetsResponse
from kio.schema.list_offsets.v5.response import ListOffsetsPartitionResponse, ListOffsetsTopicResponse
from kio.static.primitive import i32, i64

from tlsy.broker.api import NO_THROTTLE, Caller
from tlsy.broker.batch import LEADER_EPOCH

if TYPE_CHECKING:
    from kio.schema.list_offsets.v5.request import ListOffsetsPartition

    from tlsy.broker.topics import Partition, TopicStore

_LATEST: Final = -1
_EARLIEST: Final = -2


async def list_offsets(
    topics: TopicStore, request: ListOffsetsRequest, _caller: Caller
) -> ListOffsetsResponse:
    """Find the earliest or latest offset, or that of the first record since a time.

    A partition that is named twice is refused, as Apache Kafka does: each time costs a walk through it.
    """
    named = Counter(
        (topic.name, asked.partition_index) for topic in request.topics for asked in topic.partitions
    )
    return ListOffsetsResponse(
        throttle_time=NO_THROTTLE,
        topics=tuple(
            ListOffsetsTopicResponse(
                name=topic.name,
                partitions=tuple(
                    _find(topics.partition(topic.name, asked.partition_index), asked)
                    if named[topic.name, asked.partition_index] == 1
                    else _refused(asked, ErrorCode.invalid_request)
                    for asked in topic.partitions
                ),
            )
            for topic in request.topics
        ),
    )


def _find(partition: Partition | None, asked: ListOffsetsPartition) -> ListOffsetsPartitionResponse:
    if partition is None:
        return _refused(asked, ErrorCode.unknown_topic_or_partition)
    log = partition.log
    found: tuple[int, int] | None
    if asked.timestamp == _LATEST:
        found = log.end_offset, -1
    elif asked.timestamp == _EARLIEST:
        found = log.start_offset, -1
    else:
        found = log.first_since(asked.timestamp)
    if found is None:
        return ListOffsetsPartitionResponse(partition_index=asked.partition_index, error_code=ErrorCode.none)
    offset, timestamp_ms = found
    return ListOffsetsPartitionResponse(
        partition_index=asked.partition_index,
        error_code=ErrorCode.none,
        timestamp=i64(timestamp_ms),
        offset=i64(offset),
        leader_epoch=i32(LEADER_EPOCH),
    )


def _refused(asked: ListOffsetsPartition, error: ErrorCode) -> ListOffsetsPartitionResponse:
    return ListOffsetsPartitionResponse(partition_index=asked.partition_index, error_code=error)
