from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from kio.schema.errors import ErrorCode

from tlsy.broker.groups import Group, GroupState, Joined, JoinRequest, MemberId, Synced, Ticket

SESSION_S = 10.0
REBALANCE_S = 30.0


def request(*protocols, protocol_type="consumer", metadata=b"m"):
    return JoinRequest(
        client_id="client",
        client_host="127.0.0.1",
        session_timeout_s=SESSION_S,
        rebalance_timeout_s=REBALANCE_S,
        protocol_type=protocol_type,
        protocols=dict.fromkeys(protocols or ("range",), metadata),
    )


def join(group, ticket, member, now_s, *, is_new=True, asked=None):
    return dict(group.join(Ticket(ticket), MemberId(member), asked or request(), now_s, is_new=is_new))


def stable_pair():
    """A group of the members a (its leader) and b, stable in generation 2 since the time 0."""
    group = Group(max_members=3)
    join(group, 1, "a", 0.0)
    join(group, 2, "b", 0.0)
    join(group, 3, "a", 0.0, is_new=False)
    group.sync(Ticket(4), MemberId("b"), 2, {}, 0.0)
    group.sync(Ticket(5), MemberId("a"), 2, {MemberId("a"): b"0", MemberId("b"): b"1"}, 0.0)
    assert (group.state, group.generation, group.leader) == (GroupState.STABLE, 2, "a")
    return group


def test_the_first_member_leads_at_once():
    replies = join(Group(max_members=3), 1, "a", 0.0)
    assert replies[1] == Joined(
        member_id=MemberId("a"),
        generation=1,
        protocol="range",
        leader=MemberId("a"),
        members={MemberId("a"): b"m"},
    )


def test_a_second_member_waits_until_the_first_joins_again():
    group = Group(max_members=3)
    join(group, 1, "a", 0.0)
    assert join(group, 2, "b", 1.0) == {}
    replies = join(group, 3, "a", 2.0, is_new=False)
    assert {ticket: reply.generation for ticket, reply in replies.items()} == {2: 2, 3: 2}
    assert set(replies[3].members) == {"a", "b"}
    assert replies[2].members == {}


def test_followers_get_their_assignment_when_the_leader_brings_it():
    group = Group(max_members=3)
    join(group, 1, "a", 0.0)
    join(group, 2, "b", 0.0)
    join(group, 3, "a", 0.0, is_new=False)
    assert group.sync(Ticket(4), MemberId("b"), 2, {}, 0.0) == []
    replies = dict(group.sync(Ticket(5), MemberId("a"), 2, {MemberId("b"): b"for b"}, 0.0))
    assert replies[Ticket(4)] == Synced(assignment=b"for b")


def test_a_silent_member_is_removed_after_its_session_and_not_before():
    group = stable_pair()
    group.heartbeat(MemberId("a"), 2, 5.0)
    assert group.next_deadline_s() == SESSION_S
    group.expire(SESSION_S - 0.001)
    assert set(group.members) == {"a", "b"}
    group.expire(SESSION_S)
    assert set(group.members) == {"a"}
    assert group.heartbeat(MemberId("a"), 2, SESSION_S) is ErrorCode.rebalance_in_progress


def test_a_member_that_does_not_join_again_is_dropped_at_the_rebalance_deadline():
    group = stable_pair()
    assert join(group, 6, "c", 1.0) == {}
    for now_s in (5.0, 12.0, 19.0, 26.0):
        group.heartbeat(MemberId("a"), 2, now_s)
        group.heartbeat(MemberId("b"), 2, now_s)
    assert group.expire(1.0 + REBALANCE_S - 0.001) == []
    replies = dict(group.expire(1.0 + REBALANCE_S))
    assert (replies[6].generation, replies[6].leader) == (3, "c")


def test_a_leader_that_never_syncs_is_dropped_and_the_others_join_again():
    group = stable_pair()
    join(group, 6, "a", 1.0, is_new=False)
    join(group, 7, "b", 1.0, is_new=False)
    assert group.sync(Ticket(8), MemberId("b"), 3, {}, 1.0) == []
    replies = dict(group.expire(1.0 + SESSION_S))
    assert replies[8].error is ErrorCode.rebalance_in_progress
    assert set(group.members) == {"b"}


def test_a_rebalance_waits_for_an_announced_member_until_its_session_timeout():
    group = stable_pair()
    assert group.announce(MemberId("c"), SESSION_S, 1.0) is ErrorCode.member_id_required
    join(group, 6, "a", 2.0, is_new=False, asked=request(metadata=b"changed"))
    assert join(group, 7, "b", 2.0, is_new=False) == {}
    replies = dict(group.expire(1.0 + SESSION_S))
    assert set(replies) == {6, 7}


@pytest.mark.parametrize(
    ("member", "generation", "error"),
    [
        ("a", 1, ErrorCode.illegal_generation),
        ("a", 3, ErrorCode.illegal_generation),
        ("stranger", 2, ErrorCode.unknown_member_id),
        ("", -1, ErrorCode.unknown_member_id),
        ("a", 2, ErrorCode.none),
    ],
)
def test_only_a_member_of_the_current_generation_may_commit(member, generation, error):
    assert stable_pair().commit_error(MemberId(member), generation, 1.0) is error


def test_a_member_of_the_past_generation_may_not_commit_once_the_next_has_begun():
    group = stable_pair()
    group.leave(MemberId("b"), 1.0)
    assert group.commit_error(MemberId("a"), 2, 1.0) is ErrorCode.none
    join(group, 6, "a", 2.0, is_new=False)
    assert group.commit_error(MemberId("a"), 2, 2.0) is ErrorCode.illegal_generation
    assert group.commit_error(MemberId("a"), 3, 2.0) is ErrorCode.rebalance_in_progress


@pytest.mark.parametrize(
    "asked",
    [
        request("roundrobin"),
        request(protocol_type="connect"),
        replace(request(), protocols={}),
    ],
)
def test_a_member_without_a_common_protocol_is_refused(asked):
    replies = join(stable_pair(), 6, "c", 1.0, asked=asked)
    assert replies[6].error is ErrorCode.inconsistent_group_protocol


def test_the_protocol_most_members_prefer_is_chosen():
    group = Group(max_members=3)
    join(group, 1, "a", 0.0, asked=request("sticky", "range"))
    join(group, 2, "b", 0.0, asked=request("range", "sticky"))
    join(group, 3, "c", 0.0, asked=request("range", "sticky", "other"))
    replies = join(group, 4, "a", 0.0, is_new=False, asked=request("sticky", "range"))
    assert {reply.protocol for reply in replies.values()} == {"range"}


def test_an_announced_member_that_has_joined_is_not_waited_for_again():
    group = Group(max_members=3)
    group.announce(MemberId("a"), SESSION_S, 0.0)
    assert join(group, 1, "a", 1.0, is_new=False)[1].generation == 1


def test_a_stranger_with_an_id_of_its_own_making_is_refused():
    replies = join(stable_pair(), 6, "stranger", 1.0, is_new=False)
    assert replies[6].error is ErrorCode.unknown_member_id


def test_a_full_group_refuses_another_member():
    group = Group(max_members=1)
    join(group, 1, "a", 0.0)
    assert join(group, 2, "b", 0.0)[2].error is ErrorCode.group_max_size_reached
    assert group.announce(MemberId("b"), SESSION_S, 0.0) is ErrorCode.group_max_size_reached


def test_a_member_that_asks_again_gets_the_answer_and_its_older_request_ends():
    group = stable_pair()
    join(group, 6, "c", 1.0)
    replies = join(group, 7, "c", 2.0, is_new=False)
    assert replies[6].error is ErrorCode.rebalance_in_progress
    assert 7 not in replies


class AnyHistory(RuleBasedStateMachine):
    """Whatever members do and however time passes, the group's invariants hold."""

    members = st.sampled_from([MemberId(name) for name in "abcd"])

    def __init__(self):
        super().__init__()
        self.group = Group(max_members=3)
        self.now_s = 0.0
        self.open = set()
        self.tickets = 0
        self.generations = [0]

    def take(self, replies):
        for ticket, _ in replies:
            assert ticket in self.open, "answered twice or never asked"
            self.open.remove(ticket)
        self.generations.append(self.group.generation)

    def ticket(self):
        self.tickets += 1
        self.open.add(self.tickets)
        return Ticket(self.tickets)

    @rule(member=members, metadata=st.sampled_from([b"1", b"2"]))
    def joins(self, member, metadata):
        is_new = member not in self.group.members
        asked = request(metadata=metadata)
        self.take(self.group.join(self.ticket(), member, asked, self.now_s, is_new=is_new))

    @rule(member=members)
    def is_announced(self, member):
        if member not in self.group.members:
            self.group.announce(member, SESSION_S, self.now_s)

    @rule(member=members, behind=st.integers(0, 1))
    def syncs(self, member, behind):
        assignments = {name: name.encode() for name in self.group.members}
        generation = self.group.generation - behind
        self.take(self.group.sync(self.ticket(), member, generation, assignments, self.now_s))

    @rule(member=members)
    def beats(self, member):
        self.group.heartbeat(member, self.group.generation, self.now_s)

    @rule(member=members)
    def leaves(self, member):
        self.take(self.group.leave(member, self.now_s)[1])

    @precondition(lambda self: self.group.next_deadline_s() is not None)
    @rule()
    def time_passes(self):
        deadline_s = self.group.next_deadline_s()
        assert deadline_s is not None, "the precondition"
        self.now_s = max(self.now_s, deadline_s)
        self.take(self.group.expire(self.now_s))
        later_s = self.group.next_deadline_s()
        assert later_s is None or later_s > self.now_s, "an expired deadline must not stay"

    @invariant()
    def generations_only_grow(self):
        assert self.generations == sorted(self.generations)

    @invariant()
    def who_waits_is_a_member_with_an_open_ticket(self):
        waiting = [
            ticket
            for member in self.group.members.values()
            for ticket in (member.join_ticket, member.sync_ticket)
            if ticket is not None
        ]
        assert sorted(waiting) == sorted(self.open)

    @invariant()
    def who_waits_is_waiting_for_a_deadline(self):
        assert not self.open or self.group.next_deadline_s() is not None

    @invariant()
    def a_running_generation_has_a_leader_and_a_stable_one_its_assignments(self):
        if self.group.state in {GroupState.COMPLETING, GroupState.STABLE}:
            assert self.group.leader in self.group.members
        if self.group.state is GroupState.STABLE:
            assert all(member.assignment for member in self.group.members.values())
        if not self.group.members and not self.group.next_deadline_s():
            assert self.group.state is GroupState.EMPTY


AnyHistory.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_any_history_keeps_the_invariants = AnyHistory.TestCase
