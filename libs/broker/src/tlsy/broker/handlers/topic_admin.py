from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kio.schema.create_partitions.v1 import CreatePartitionsRequest, CreatePartitionsResponse
from kio.schema.create_partitions.v1.response import CreatePartitionsTopicResult
from kio.schema.create_topics.v4 import CreateTopicsRequest, CreateTopicsResponse
from kio.schema.create_topics.v4.response import CreatableTopicResult
from kio.schema.delete_topics.v3 import DeleteTopicsRequest, DeleteTopicsResponse
from kio.schema.delete_topics.v3.response import DeletableTopicResult
from kio.schema.errors import ErrorCode

from tlsy.broker.api import NO_THROTTLE, Caller
from tlsy.broker.topics import TopicError, TopicStore

if TYPE_CHECKING:
    from kio.schema.create_topics.v4.request import CreatableTopic

    from tlsy.broker.coordinator import GroupCoordinator
    from tlsy.broker.settings import BrokerSettings

_UNSET: Final = -1
_CLEANUP_POLICY: Final = "cleanup.policy"
_TIMESTAMP_TYPE: Final = "message.timestamp.type"
_TIMESTAMP_TYPES: Final = frozenset({"CreateTime", "LogAppendTime"})


async def create_topics(
    topics: TopicStore, settings: BrokerSettings, request: CreateTopicsRequest, _caller: Caller
) -> CreateTopicsResponse:
    """Create topics, each on its own.

    Of topic configurations message.timestamp.type has its effect; others are accepted and have none, except
    that compaction is refused: retention is by the broker's memory alone.
    """
    results: list[CreatableTopicResult] = []
    for topic in request.topics:
        error, message = ErrorCode.none, None
        try:
            _check_placement(topic)
            count = settings.default_partitions if topic.num_partitions == _UNSET else topic.num_partitions
            topics.create(
                topic.name,
                count,
                append_time=_timestamp_type(topic) == "LogAppendTime",
                validate_only=request.validate_only,
            )
        except TopicError as refusal:
            error, message = refusal.code, refusal.message
        results.append(CreatableTopicResult(name=topic.name, error_code=error, error_message=message))
    return CreateTopicsResponse(throttle_time=NO_THROTTLE, topics=tuple(results))


async def create_partitions(
    topics: TopicStore, request: CreatePartitionsRequest, _caller: Caller
) -> CreatePartitionsResponse:
    """Grow topics to a number of partitions."""
    results: list[CreatePartitionsTopicResult] = []
    for topic in request.topics:
        error, message = ErrorCode.none, None
        try:
            topics.grow(topic.name, topic.count, validate_only=request.validate_only)
        except TopicError as refusal:
            error, message = refusal.code, refusal.message
        results.append(CreatePartitionsTopicResult(name=topic.name, error_code=error, error_message=message))
    return CreatePartitionsResponse(throttle_time=NO_THROTTLE, results=tuple(results))


async def delete_topics(
    topics: TopicStore, coordinator: GroupCoordinator, request: DeleteTopicsRequest, _caller: Caller
) -> DeleteTopicsResponse:
    """Delete topics with their records and the offsets committed in them."""
    results: list[DeletableTopicResult] = []
    for name in request.topic_names:
        error = ErrorCode.none
        try:
            topics.delete(name)
            coordinator.forget_topic(name)
        except TopicError as refusal:
            error = refusal.code
        results.append(DeletableTopicResult(name=name, error_code=error))
    return DeleteTopicsResponse(throttle_time=NO_THROTTLE, responses=tuple(results))


def _check_placement(topic: CreatableTopic) -> None:
    if topic.assignments:
        raise TopicError(ErrorCode.invalid_replica_assignment, "There is one broker; nothing to assign.")
    if topic.replication_factor not in {1, _UNSET}:
        raise TopicError(
            ErrorCode.invalid_replication_factor, "There is one broker: the replication factor must be 1."
        )
    for config in topic.configs:
        if config.name == _CLEANUP_POLICY and "compact" in (config.value or ""):
            raise TopicError(ErrorCode.invalid_config, "Compaction is not offered.")


def _timestamp_type(topic: CreatableTopic) -> str:
    for config in topic.configs:
        if config.name == _TIMESTAMP_TYPE and config.value is not None:
            if config.value not in _TIMESTAMP_TYPES:
                raise TopicError(ErrorCode.invalid_config, f"{_TIMESTAMP_TYPE} is not '{config.value}'.")
            return config.value
    return "CreateTime"
