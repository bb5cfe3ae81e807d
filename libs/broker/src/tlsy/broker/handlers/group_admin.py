from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kio.schema.describe_groups.v4 import DescribeGroupsRequest, DescribeGroupsResponse
from kio.schema.describe_groups.v4.response import DescribedGroup, DescribedGroupMember
from kio.schema.errors import ErrorCode
from kio.schema.list_groups.v2 import ListGroupsRequest, ListGroupsResponse
from kio.schema.list_groups.v2.response import ListedGroup
from kio.schema.types import GroupId as WireGroupId

from tlsy.broker.api import NO_THROTTLE, Caller
from tlsy.broker.coordinator import GroupCoordinator, GroupId

if TYPE_CHECKING:
    from tlsy.broker.groups import Group, Member

_DEAD: Final = "Dead"


async def list_groups(
    coordinator: GroupCoordinator, _request: ListGroupsRequest, _caller: Caller
) -> ListGroupsResponse:
    """List all groups."""
    return ListGroupsResponse(
        throttle_time=NO_THROTTLE,
        error_code=ErrorCode.none,
        groups=tuple(
            ListedGroup(group_id=WireGroupId(group_id), protocol_type=group.protocol_type)
            for group_id, group in coordinator.groups()
        ),
    )


async def describe_groups(
    coordinator: GroupCoordinator, request: DescribeGroupsRequest, _caller: Caller
) -> DescribeGroupsResponse:
    """Describe groups with their members, each once; an unknown group is told to be dead."""
    return DescribeGroupsResponse(
        throttle_time=NO_THROTTLE,
        groups=tuple(
            _described(group_id, coordinator.group(GroupId(group_id)))
            for group_id in dict.fromkeys(request.groups)
        ),
    )


def _described(group_id: WireGroupId, group: Group | None) -> DescribedGroup:
    if group is None:
        return DescribedGroup(
            error_code=ErrorCode.none,
            group_id=group_id,
            group_state=_DEAD,
            protocol_type="",
            protocol_data="",
            members=(),
        )
    return DescribedGroup(
        error_code=ErrorCode.none,
        group_id=group_id,
        group_state=group.state.value,
        protocol_type=group.protocol_type,
        protocol_data=group.protocol,
        members=tuple(_described_member(group, member) for member in group.members.values()),
    )


def _described_member(group: Group, member: Member) -> DescribedGroupMember:
    return DescribedGroupMember(
        member_id=member.member_id,
        client_id=member.request.client_id,
        client_host=member.request.client_host,
        member_metadata=member.request.protocols.get(group.protocol, b""),
        member_assignment=member.assignment,
    )
