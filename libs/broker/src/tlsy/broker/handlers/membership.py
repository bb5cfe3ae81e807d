from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kio.schema.errors import ErrorCode
from kio.schema.find_coordinator.v2 import FindCoordinatorRequest, FindCoordinatorResponse
from kio.schema.heartbeat.v3 import HeartbeatRequest, HeartbeatResponse
from kio.schema.join_group.v5 import JoinGroupRequest, JoinGroupResponse
from kio.schema.join_group.v5.response import JoinGroupResponseMember
from kio.schema.leave_group.v2 import LeaveGroupRequest, LeaveGroupResponse
from kio.schema.sync_group.v3 import SyncGroupRequest, SyncGroupResponse
from kio.schema.types import BrokerId
from kio.static.primitive import i32

from tlsy.broker.api import NO_THROTTLE, NODE_ID, Caller
from tlsy.broker.coordinator import GroupCoordinator, GroupId
from tlsy.broker.groups import Joined, JoinRequest, MemberId, Synced

if TYPE_CHECKING:
    from tlsy.broker.settings import BrokerSettings

_GROUP: Final = 0
_TRANSACTION: Final = 1
_FIRST_ANNOUNCING_VERSION: Final = 4


async def find_coordinator(request: FindCoordinatorRequest, caller: Caller) -> FindCoordinatorResponse:
    """Name this broker as coordinator of any group; there is none for transactions."""
    if request.key_type == _GROUP:
        return FindCoordinatorResponse(
            throttle_time=NO_THROTTLE,
            error_code=ErrorCode.none,
            error_message=None,
            node_id=BrokerId(NODE_ID),
            host=caller.broker_host,
            port=i32(caller.broker_port),
        )
    is_transaction = request.key_type == _TRANSACTION
    return FindCoordinatorResponse(
        throttle_time=NO_THROTTLE,
        error_code=ErrorCode.transactional_id_authorization_failed
        if is_transaction
        else ErrorCode.invalid_request,
        error_message="This broker has no transactions." if is_transaction else "Unknown key type.",
        node_id=BrokerId(-1),
        host="",
        port=i32(-1),
    )


async def join_group(
    coordinator: GroupCoordinator, settings: BrokerSettings, request: JoinGroupRequest, caller: Caller
) -> JoinGroupResponse:
    """Join, waiting for the group's next generation."""
    if request.group_instance_id is not None:
        joined = Joined(error=ErrorCode.unsupported_version, member_id=MemberId(request.member_id))
    else:
        session_timeout_s = request.session_timeout.total_seconds()
        rebalance_timeout_s = request.rebalance_timeout.total_seconds()
        if rebalance_timeout_s < 0:
            rebalance_timeout_s = session_timeout_s
        joined = await coordinator.join(
            GroupId(request.group_id),
            MemberId(request.member_id),
            JoinRequest(
                client_id=caller.client_id,
                client_host=caller.client_host,
                session_timeout_s=session_timeout_s,
                rebalance_timeout_s=min(rebalance_timeout_s, settings.max_rebalance_timeout_s),
                protocol_type=request.protocol_type,
                protocols={protocol.name: protocol.metadata for protocol in request.protocols},
            ),
            announces=caller.api_version >= _FIRST_ANNOUNCING_VERSION,
        )
    return JoinGroupResponse(
        throttle_time=NO_THROTTLE,
        error_code=joined.error,
        generation_id=i32(joined.generation),
        protocol_name=joined.protocol,
        leader=joined.leader,
        member_id=joined.member_id,
        members=tuple(
            JoinGroupResponseMember(member_id=member_id, metadata=metadata)
            for member_id, metadata in joined.members.items()
        ),
    )


async def sync_group(
    coordinator: GroupCoordinator, request: SyncGroupRequest, _caller: Caller
) -> SyncGroupResponse:
    """Hand out assignments, waiting for the leader's."""
    if request.group_instance_id is not None:
        synced = Synced(ErrorCode.unsupported_version)
    else:
        synced = await coordinator.sync(
            GroupId(request.group_id),
            MemberId(request.member_id),
            request.generation_id,
            {MemberId(item.member_id): item.assignment for item in request.assignments},
        )
    return SyncGroupResponse(throttle_time=NO_THROTTLE, error_code=synced.error, assignment=synced.assignment)


async def heartbeat(
    coordinator: GroupCoordinator, request: HeartbeatRequest, _caller: Caller
) -> HeartbeatResponse:
    """Keep a member alive and tell it of a rebalance."""
    error = coordinator.heartbeat(
        GroupId(request.group_id), MemberId(request.member_id), request.generation_id
    )
    return HeartbeatResponse(throttle_time=NO_THROTTLE, error_code=error)


async def leave_group(
    coordinator: GroupCoordinator, request: LeaveGroupRequest, _caller: Caller
) -> LeaveGroupResponse:
    """Take a member out of its group."""
    error = coordinator.leave(GroupId(request.group_id), MemberId(request.member_id))
    return LeaveGroupResponse(throttle_time=NO_THROTTLE, error_code=error)
