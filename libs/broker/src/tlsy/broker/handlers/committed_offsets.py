from __future__ import annotations

from typing import TYPE_CHECKING

from kio.schema.errors import ErrorCode
from kio.schema.offset_commit.v7 import OffsetCommitRequest, OffsetCommitResponse
from kio.schema.offset_commit.v7.response import OffsetCommitResponsePartition, OffsetCommitResponseTopic
from kio.schema.offset_fetch.v5 import OffsetFetchRequest, OffsetFetchResponse
from kio.schema.offset_fetch.v5.response import OffsetFetchResponsePartition, OffsetFetchResponseTopic
from kio.schema.types import TopicName
from kio.static.primitive import i32, i64

from tlsy.broker.api import NO_THROTTLE, Caller
from tlsy.broker.coordinator import CommittedOffset, GroupCoordinator, GroupId
from tlsy.broker.groups import MemberId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kio.schema.offset_commit.v7.request import OffsetCommitRequestPartition

    from tlsy.broker.settings import BrokerSettings
    from tlsy.broker.topics import TopicStore


async def offset_commit(
    topics: TopicStore,
    coordinator: GroupCoordinator,
    settings: BrokerSettings,
    request: OffsetCommitRequest,
    _caller: Caller,
) -> OffsetCommitResponse:
    """Commit the valid ones of the offsets, if the group allows the member to commit at all."""
    errors: dict[tuple[str, int], ErrorCode] = {}
    valid: dict[tuple[str, int], CommittedOffset] = {}
    for topic in request.topics:
        for asked in topic.partitions:
            place = topic.name, asked.partition_index
            errors[place] = _offset_error(topics, settings, topic.name, asked)
            if errors[place] is ErrorCode.none:
                valid[place] = CommittedOffset(
                    asked.committed_offset, asked.committed_leader_epoch, asked.committed_metadata or ""
                )
    refusal = (
        ErrorCode.unsupported_version
        if request.group_instance_id is not None
        else coordinator.commit(
            GroupId(request.group_id),
            MemberId(request.member_id),
            request.generation_id_or_member_epoch,
            valid,
        )
    )
    return OffsetCommitResponse(
        throttle_time=NO_THROTTLE,
        topics=tuple(
            OffsetCommitResponseTopic(
                name=topic.name,
                partitions=tuple(
                    OffsetCommitResponsePartition(
                        partition_index=asked.partition_index,
                        error_code=refusal or errors[topic.name, asked.partition_index],
                    )
                    for asked in topic.partitions
                ),
            )
            for topic in request.topics
        ),
    )


async def offset_fetch(
    coordinator: GroupCoordinator, request: OffsetFetchRequest, _caller: Caller
) -> OffsetFetchResponse:
    """Tell the committed offsets of the partitions asked for, or of all; -1 where there is none."""
    committed = coordinator.offsets(GroupId(request.group_id))
    asked: dict[str, list[int]] = {}
    if request.topics is None:
        for topic, index in committed:
            asked.setdefault(topic, []).append(index)
    else:
        for item in request.topics:
            asked.setdefault(item.name, []).extend(item.partition_indexes)
    return OffsetFetchResponse(
        throttle_time=NO_THROTTLE,
        topics=tuple(
            OffsetFetchResponseTopic(
                name=TopicName(topic),
                partitions=tuple(_committed(committed, topic, index) for index in indexes),
            )
            for topic, indexes in asked.items()
        ),
        error_code=ErrorCode.none,
    )


def _offset_error(
    topics: TopicStore, settings: BrokerSettings, topic: str, asked: OffsetCommitRequestPartition
) -> ErrorCode:
    if topics.partition(topic, asked.partition_index) is None:
        return ErrorCode.unknown_topic_or_partition
    if len((asked.committed_metadata or "").encode()) > settings.max_offset_metadata_bytes:
        return ErrorCode.offset_metadata_too_large
    return ErrorCode.none


def _committed(
    committed: Mapping[tuple[str, int], CommittedOffset], topic: str, index: int
) -> OffsetFetchResponsePartition:
    found = committed.get((topic, index), CommittedOffset(-1, -1, ""))
    return OffsetFetchResponsePartition(
        partition_index=i32(index),
        committed_offset=i64(found.offset),
        committed_leader_epoch=i32(found.leader_epoch),
        metadata=found.metadata,
        error_code=ErrorCode.none,
    )
