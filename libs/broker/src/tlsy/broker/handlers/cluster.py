from __future__ import annotations

from kio.schema.describe_cluster.v0 import DescribeClusterRequest, DescribeClusterResponse
from kio.schema.describe_cluster.v0.response import DescribeClusterBroker
from kio.schema.errors import ErrorCode
from kio.schema.types import BrokerId
from kio.static.primitive import i32

from tlsy.broker.api import NO_THROTTLE, NODE_ID, Caller


async def describe_cluster(
    cluster_id: str, _request: DescribeClusterRequest, caller: Caller
) -> DescribeClusterResponse:
    """Tell the cluster id and the one broker."""
    return DescribeClusterResponse(
        throttle_time=NO_THROTTLE,
        error_code=ErrorCode.none,
        cluster_id=cluster_id,
        controller_id=BrokerId(NODE_ID),
        brokers=(
            DescribeClusterBroker(
                broker_id=BrokerId(NODE_ID), host=caller.broker_host, port=i32(caller.broker_port)
            ),
        ),
    )
