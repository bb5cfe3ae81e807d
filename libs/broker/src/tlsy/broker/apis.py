from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from kio.schema.api_versions.v3 import ApiVersionsRequest
from kio.schema.create_partitions.v1 import CreatePartitionsRequest
from kio.schema.create_topics.v4 import CreateTopicsRequest
from kio.schema.delete_topics.v3 import DeleteTopicsRequest
from kio.schema.describe_cluster.v0 import DescribeClusterRequest
from kio.schema.describe_groups.v4 import DescribeGroupsRequest
from kio.schema.fetch.v11 import FetchRequest
from kio.schema.find_coordinator.v2 import FindCoordinatorRequest
from kio.schema.heartbeat.v3 import HeartbeatRequest
from kio.schema.init_producer_id.v1 import InitProducerIdRequest
from kio.schema.join_group.v5 import JoinGroupRequest
from kio.schema.leave_group.v2 import LeaveGroupRequest
from kio.schema.list_groups.v2 import ListGroupsRequest
from kio.schema.list_offsets.v5 import ListOffsetsRequest
from kio.schema.metadata.v8 import MetadataRequest
from kio.schema.offset_commit.v7 import OffsetCommitRequest
from kio.schema.offset_fetch.v5 import OffsetFetchRequest
from kio.schema.produce.v7 import ProduceRequest
from kio.schema.sync_group.v3 import SyncGroupRequest

from tlsy.broker.api import Api
from tlsy.broker.handlers.api_versions import api_versions
from tlsy.broker.handlers.cluster import describe_cluster
from tlsy.broker.handlers.committed_offsets import offset_commit, offset_fetch
from tlsy.broker.handlers.fetch import fetch
from tlsy.broker.handlers.group_admin import describe_groups, list_groups
from tlsy.broker.handlers.list_offsets import list_offsets
from tlsy.broker.handlers.membership import find_coordinator, heartbeat, join_group, leave_group, sync_group
from tlsy.broker.handlers.metadata import metadata
from tlsy.broker.handlers.produce import produce
from tlsy.broker.handlers.producer_ids import init_producer_id
from tlsy.broker.handlers.topic_admin import create_partitions, create_topics, delete_topics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tlsy.broker.coordinator import GroupCoordinator
    from tlsy.broker.settings import BrokerSettings
    from tlsy.broker.topics import TopicStore


def all_apis(
    *,
    topics: TopicStore,
    coordinator: GroupCoordinator,
    settings: BrokerSettings,
    cluster_id: str,
    producer_ids: Iterator[int],
    now_ms: Callable[[], int],
) -> Mapping[int, Api]:
    """Every API that the broker offers, by key, wired to what its handler needs.

    The newest versions are those before flexible encoding, topic ids and static membership: aiokafka
    speaks nothing newer and librdkafka falls back to them.
    """
    apis: dict[int, Api] = {}
    offered = (
        Api(ProduceRequest, 3, partial(produce, topics, settings, now_ms)),
        Api(FetchRequest, 4, partial(fetch, topics, settings)),
        Api(ListOffsetsRequest, 1, partial(list_offsets, topics)),
        Api(MetadataRequest, 0, partial(metadata, topics, settings, cluster_id)),
        Api(OffsetCommitRequest, 2, partial(offset_commit, topics, coordinator, settings)),
        Api(OffsetFetchRequest, 1, partial(offset_fetch, coordinator)),
        Api(FindCoordinatorRequest, 0, find_coordinator),
        Api(JoinGroupRequest, 0, partial(join_group, coordinator, settings)),
        Api(HeartbeatRequest, 0, partial(heartbeat, coordinator)),
        Api(LeaveGroupRequest, 0, partial(leave_group, coordinator)),
        Api(SyncGroupRequest, 0, partial(sync_group, coordinator)),
        Api(DescribeGroupsRequest, 0, partial(describe_groups, coordinator)),
        Api(ListGroupsRequest, 0, partial(list_groups, coordinator)),
        Api(ApiVersionsRequest, 0, partial(api_versions, apis.values())),
        Api(CreateTopicsRequest, 2, partial(create_topics, topics, settings)),
        Api(DeleteTopicsRequest, 1, partial(delete_topics, topics, coordinator)),
        Api(InitProducerIdRequest, 0, partial(init_producer_id, producer_ids)),
        Api(CreatePartitionsRequest, 0, partial(create_partitions, topics)),
        Api(DescribeClusterRequest, 0, partial(describe_cluster, cluster_id)),
    )
    apis.update({api.key: api for api in offered})
    return apis
