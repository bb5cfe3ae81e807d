from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from uuid import UUID

import pytest
from kio.schema.errors import ErrorCode

from tlsy.broker import BrokerSettings
from tlsy.broker.coordinator import CommittedOffset, GroupCoordinator, GroupId
from tlsy.broker.groups import JoinRequest, MemberId

GROUP = GroupId("group")
NOBODY = MemberId("")
REQUEST = JoinRequest(
    client_id="client",
    client_host="127.0.0.1",
    session_timeout_s=30,
    rebalance_timeout_s=30,
    protocol_type="consumer",
    protocols={"range": b""},
)


@pytest.fixture
async def coordinator():
    numbers = itertools.count(1)
    coordinator = GroupCoordinator(
        BrokerSettings(max_groups=2, min_session_timeout_s=0.1), lambda: UUID(int=next(numbers))
    )
    yield coordinator
    coordinator.close()


def commit(coordinator, group, topic="topic"):
    return coordinator.commit(GroupId(group), NOBODY, -1, {(topic, 0): CommittedOffset(1, 0, "")})


async def test_a_group_beyond_the_limit_is_refused(coordinator):
    assert commit(coordinator, "one") is ErrorCode.none
    assert commit(coordinator, "two") is ErrorCode.none
    assert commit(coordinator, "three") is ErrorCode.group_max_size_reached
    joined = await coordinator.join(GroupId("three"), NOBODY, REQUEST, announces=False)
    assert joined.error is ErrorCode.group_max_size_reached


async def test_a_group_left_by_all_without_a_commit_is_forgotten(coordinator):
    joined = await coordinator.join(GROUP, NOBODY, REQUEST, announces=False)
    assert [group_id for group_id, _ in coordinator.groups()] == [GROUP]
    assert coordinator.leave(GROUP, joined.member_id) is ErrorCode.none
    assert list(coordinator.groups()) == []


async def test_the_offsets_of_a_deleted_topic_are_forgotten(coordinator):
    commit(coordinator, "one", "kept")
    commit(coordinator, "one", "deleted")
    commit(coordinator, "two", "deleted")
    coordinator.forget_topic("deleted")
    assert list(coordinator.offsets(GroupId("one"))) == [("kept", 0)]
    assert [group_id for group_id, _ in coordinator.groups()] == ["one"]


async def test_a_cancelled_request_leaves_nobody_waiting(coordinator):
    first = await coordinator.join(GROUP, NOBODY, REQUEST, announces=False)
    waiting = asyncio.create_task(coordinator.join(GROUP, NOBODY, REQUEST, announces=False))
    done, _ = await asyncio.wait({waiting}, timeout=0.02)
    assert not done
    waiting.cancel()
    await asyncio.wait({waiting})
    assert coordinator._waiting == {}
    assert coordinator.heartbeat(GROUP, first.member_id, 1) is ErrorCode.rebalance_in_progress


async def test_who_waits_gets_the_answer_when_a_silent_member_expires(coordinator):
    brief = replace(REQUEST, session_timeout_s=0.1, rebalance_timeout_s=0.2)
    silent = await coordinator.join(GROUP, NOBODY, brief, announces=False)
    joined = await asyncio.wait_for(coordinator.join(GROUP, NOBODY, REQUEST, announces=False), 60)
    assert (joined.generation, joined.leader) == (2, joined.member_id)
    assert coordinator.heartbeat(GROUP, silent.member_id, 2) is ErrorCode.unknown_member_id


async def test_a_member_without_an_id_may_be_told_it_first(coordinator):
    announced = await coordinator.join(GROUP, NOBODY, REQUEST, announces=True)
    assert announced.error is ErrorCode.member_id_required
    joined = await coordinator.join(GROUP, announced.member_id, REQUEST, announces=True)
    assert (joined.error, joined.leader) == (ErrorCode.none, announced.member_id)


async def test_a_member_of_a_group_that_is_gone_is_unknown(coordinator):
    stranger = MemberId("stranger")
    assert (await coordinator.join(GROUP, stranger, REQUEST, announces=False)).error is (
        ErrorCode.unknown_member_id
    )
    assert (await coordinator.sync(GROUP, stranger, 1, {})).error is ErrorCode.unknown_member_id
    assert coordinator.heartbeat(GROUP, stranger, 1) is ErrorCode.unknown_member_id
    assert coordinator.leave(GROUP, stranger) is ErrorCode.unknown_member_id
    assert coordinator.commit(GROUP, stranger, 1, {}) is ErrorCode.illegal_generation
