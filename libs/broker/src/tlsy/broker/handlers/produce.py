from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kio.schema.errors import ErrorCode
from kio.schema.produce.v7 import ProduceRequest, ProduceResponse
from kio.schema.produce.v7.response import PartitionProduceResponse, TopicProduceResponse
from kio.static.primitive import i64

from tlsy.broker.api import NO_THROTTLE, Caller, DisconnectError
from tlsy.broker.batch import InvalidBatchError, parse_batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from kio.schema.produce.v7.request import PartitionProduceData
    from kio.schema.types import TopicName

    from tlsy.broker.settings import BrokerSettings
    from tlsy.broker.topics import TopicStore

_NO_RESPONSE: Final = 0
_ACKS: Final = frozenset({-1, 0, 1})


async def produce(
    topics: TopicStore,
    settings: BrokerSettings,
    now_ms: Callable[[], int],
    request: ProduceRequest,
    _caller: Caller,
) -> ProduceResponse | None:
    """Append each partition's batch; partitions succeed or fail on their own.

    All acknowledgement levels store before answering; 0 has no answer.
    """
    refusal = ErrorCode.none
    if request.acks not in _ACKS:
        refusal = ErrorCode.invalid_required_acks
    elif request.transactional_id is not None:
        refusal = ErrorCode.transactional_id_authorization_failed
    responses = tuple(
        TopicProduceResponse(
            name=topic.name,
            partition_responses=tuple(
                _refused(partition, refusal)
                if refusal is not ErrorCode.none
                else _append(topics, settings, now_ms(), topic.name, partition)
                for partition in topic.partition_data
            ),
        )
        for topic in request.topic_data
    )
    if request.acks != _NO_RESPONSE:
        return ProduceResponse(responses=responses, throttle_time=NO_THROTTLE)
    failed = [
        partition.error_code.name
        for topic in responses
        for partition in topic.partition_responses
        if partition.error_code is not ErrorCode.none
    ]
    if failed:
        raise DisconnectError(f"produce without acknowledgement failed: {failed[0]}")
    return None


def _append(
    topics: TopicStore, settings: BrokerSettings, now_ms: int, topic: TopicName, data: PartitionProduceData
) -> PartitionProduceResponse:
    partition = topics.partition(topic, data.index)
    if partition is None:
        return _refused(data, ErrorCode.unknown_topic_or_partition)
    try:
        batch = parse_batch(data.records or b"", max_bytes=settings.max_message_bytes)
        appended = topics.append(partition, batch, now_ms)
    except InvalidBatchError as error:
        return _refused(data, error.code)
    return PartitionProduceResponse(
        index=data.index,
        error_code=ErrorCode.none,
        base_offset=i64(appended.base_offset),
        log_start_offset=i64(partition.log.start_offset),
    )


def _refused(data: PartitionProduceData, error: ErrorCode) -> PartitionProduceResponse:
    return PartitionProduceResponse(index=data.index, error_code=error, base_offset=i64(-1))
