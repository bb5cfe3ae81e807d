from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kio.schema.errors import ErrorCode
from kio.schema.fetch.v11 import FetchRequest, FetchResponse
from kio.schema.fetch.v11.response import FetchableTopicResponse, PartitionData
from kio.static.primitive import Records, i64

from tlsy.broker.api import NO_THROTTLE, Caller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kio.schema.fetch.v11.request import FetchPartition

    from tlsy.broker.settings import BrokerSettings
    from tlsy.broker.topics import Partition, TopicStore


async def fetch(
    topics: TopicStore, settings: BrokerSettings, request: FetchRequest, _caller: Caller
) -> FetchResponse:
    """Answer with stored batches, waiting up to the client's `max_wait` for `min_bytes` of them.

    An offset out of range and the deletion of a topic end the wait; a partition that was never there does
    not, unless there is no other (as in Apache Kafka: a client that asks for one again and again is slowed
    down). Fetch sessions are not offered: every
    request names all its partitions.
    """
    if request.session_id != 0:
        return FetchResponse(
            throttle_time=NO_THROTTLE, error_code=ErrorCode.fetch_session_id_not_found, responses=()
        )
    await _wait_until_ready(topics, settings, request)
    return _read(topics, settings, request)


async def _wait_until_ready(topics: TopicStore, settings: BrokerSettings, request: FetchRequest) -> None:
    wanted = [
        (topic.topic, asked, partition)
        for topic in request.topics
        for asked in topic.partitions
        if (partition := topics.partition(topic.topic, asked.partition)) is not None
    ]
    if _is_ready(topics, wanted, request.min_bytes):
        return
    grown = asyncio.Event()
    for _, _, partition in wanted:
        partition.listeners.add(grown.set)
    try:
        async with asyncio.timeout(min(request.max_wait.total_seconds(), settings.max_fetch_wait_s)):
            while not _is_ready(topics, wanted, request.min_bytes):
                grown.clear()
                await grown.wait()
    except TimeoutError:
        pass
    finally:
        for _, _, partition in wanted:
            partition.listeners.discard(grown.set)


def _is_ready(
    topics: TopicStore, wanted: Sequence[tuple[str, FetchPartition, Partition]], min_bytes: int
) -> bool:
    found = 0
    for topic, asked, partition in wanted:
        is_gone = topics.partition(topic, asked.partition) is not partition
        if is_gone or _is_out_of_range(partition, asked):
            return True
        if found < min_bytes:
            found += partition.log.bytes_from(asked.fetch_offset, min_bytes - found)
    return found >= min_bytes or not wanted


def _read(topics: TopicStore, settings: BrokerSettings, request: FetchRequest) -> FetchResponse:
    room = min(request.max_bytes, settings.max_fetch_bytes)
    is_empty = True
    responses: list[FetchableTopicResponse] = []
    for topic in request.topics:
        found: list[PartitionData] = []
        for asked in topic.partitions:
            data = _read_partition(
                topics.partition(topic.topic, asked.partition), asked, room, at_least_one=is_empty
            )
            size_bytes = len(data.records or b"")
            room = max(0, room - size_bytes)
            is_empty = is_empty and size_bytes == 0
            found.append(data)
        responses.append(FetchableTopicResponse(topic=topic.topic, partitions=tuple(found)))
    return FetchResponse(throttle_time=NO_THROTTLE, error_code=ErrorCode.none, responses=tuple(responses))


def _read_partition(
    partition: Partition | None, asked: FetchPartition, room: int, *, at_least_one: bool
) -> PartitionData:
    if partition is None:
        error = ErrorCode.unknown_topic_or_partition
    elif _is_out_of_range(partition, asked):
        error = ErrorCode.offset_out_of_range
    else:
        log = partition.log
        records = log.read(
            asked.fetch_offset, min(room, asked.partition_max_bytes), at_least_one=at_least_one
        )
        return PartitionData(
            partition_index=asked.partition,
            error_code=ErrorCode.none,
            high_watermark=i64(log.end_offset),
            last_stable_offset=i64(log.end_offset),
            log_start_offset=i64(log.start_offset),
            aborted_transactions=None,
            records=Records(records),
        )
    return PartitionData(
        partition_index=asked.partition,
        error_code=error,
        high_watermark=i64(-1),
        aborted_transactions=None,
        records=Records(b""),
    )


def _is_out_of_range(partition: Partition, asked: FetchPartition) -> bool:
    return not partition.log.start_offset <= asked.fetch_offset <= partition.log.end_offset
