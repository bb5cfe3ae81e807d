"""The classic consumer group protocol as a state machine.

Pure: the time is an argument and nothing waits. A request that cannot be answered yet leaves its ticket,
a number of the caller's choice, with the group; the reply comes out of a later call.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NewType, TypeAlias

from kio.schema.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping

Ticket = NewType("Ticket", int)
MemberId = NewType("MemberId", str)


class GroupState(enum.Enum):
    """The states of Apache Kafka's classic groups; the values are what DescribeGroups tells."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRequest:
    """What a member says of itself when it joins; the timeouts are in seconds."""

    client_id: str
    client_host: str
    session_timeout_s: float
    rebalance_timeout_s: float
    protocol_type: str
    protocols: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Reply to a join; only the leader gets the members (id to metadata of the chosen protocol)."""

    error: ErrorCode = ErrorCode.none
    member_id: MemberId = MemberId("")
    generation: int = -1
    protocol: str = ""
    leader: MemberId = MemberId("")
    members: Mapping[MemberId, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Synced:
    """Reply to a sync: the member's assignment, opaque to the broker."""

    error: ErrorCode = ErrorCode.none
    assignment: bytes = b""


Reply: TypeAlias = tuple[Ticket, Joined | Synced]


@dataclass(slots=True, kw_only=True)
class Member:
    """One member as of its last join."""

    member_id: MemberId
    request: JoinRequest
    session_deadline_s: float
    assignment: bytes = b""
    join_ticket: Ticket | None = None
    sync_ticket: Ticket | None = None


class Group:
    """Membership, generations and assignments of one group.

    Invariants: a ticket is answered exactly once; a generation has one leader, a member of it; assignments
    exist only in the state STABLE; a member that waits for an answer does not expire, because the
    rebalance that it waits for has a deadline of its own.
    Static membership is not offered.
    """

    def __init__(self, *, max_members: int) -> None:
        self._max_members = max_members
        self._pending: dict[MemberId, float] = {}
        self._deadline_s = 0.0
        self._replies: list[Reply] = []
        self.state = GroupState.EMPTY
        self.generation = 0
        self.protocol_type = ""
        self.protocol = ""
        self.leader = MemberId("")
        self.members: dict[MemberId, Member] = {}

    @property
    def is_forgettable(self) -> bool:
        """Nobody is in it or about to join."""
        return not self.members and not self._pending

    def announce(self, member_id: MemberId, session_timeout_s: float, now_s: float) -> ErrorCode:
        """Reserve an id for a member that is told to join again with it.

        A rebalance waits for such a member until its session timeout.
        """
        if len(self.members) + len(self._pending) >= self._max_members:
            return ErrorCode.group_max_size_reached
        self._pending[member_id] = now_s + session_timeout_s
        return ErrorCode.member_id_required

    def join(
        self, ticket: Ticket, member_id: MemberId, request: JoinRequest, now_s: float, *, is_new: bool
    ) -> list[Reply]:
        """Add or refresh a member; the reply comes when everybody has joined.

        `is_new` says that `member_id` was made for this very request.
        """
        error = self._join_error(member_id, request, is_new=is_new)
        if error is not ErrorCode.none:
            return [(ticket, Joined(error=error, member_id=member_id))]
        self._pending.pop(member_id, None)
        member = self.members.get(member_id)
        if member is None:
            member = Member(
                member_id=member_id, request=request, session_deadline_s=now_s + request.session_timeout_s
            )
            self.members[member_id] = member
            self.protocol_type = request.protocol_type
            changed = True
        else:
            changed = member.request.protocols != request.protocols
            member.request = request
            member.session_deadline_s = now_s + request.session_timeout_s
        leads_again = self.state is GroupState.STABLE and member_id == self.leader
        if self.state in {GroupState.STABLE, GroupState.COMPLETING} and not changed and not leads_again:
            return [(ticket, self._joined(member))]
        if member.join_ticket is not None:
            self._replies.append(
                (member.join_ticket, Joined(error=ErrorCode.rebalance_in_progress, member_id=member_id))
            )
        member.join_ticket = ticket
        self._rebalance(now_s)
        return self._take_replies()

    def sync(
        self,
        ticket: Ticket,
        member_id: MemberId,
        generation: int,
        assignments: Mapping[MemberId, bytes],
        now_s: float,
    ) -> list[Reply]:
        """Fetch the member's assignment; the leader brings everybody's."""
        error = self._member_error(member_id, generation)
        if error is ErrorCode.none and self.state is GroupState.PREPARING:
            error = ErrorCode.rebalance_in_progress
        if error is not ErrorCode.none:
            return [(ticket, Synced(error))]
        member = self.members[member_id]
        self._touch(member, now_s)
        if self.state is GroupState.STABLE:
            return [(ticket, Synced(assignment=member.assignment))]
        if member.sync_ticket is not None:
            self._replies.append((member.sync_ticket, Synced(ErrorCode.rebalance_in_progress)))
        member.sync_ticket = ticket
        if member_id == self.leader:
            self._settle(assignments, now_s)
        return self._take_replies()

    def heartbeat(self, member_id: MemberId, generation: int, now_s: float) -> ErrorCode:
        """Keep a member alive; REBALANCE_IN_PROGRESS tells it to join again."""
        error = self._member_error(member_id, generation)
        if error is not ErrorCode.none:
            return error
        self._touch(self.members[member_id], now_s)
        return ErrorCode.rebalance_in_progress if self.state is GroupState.PREPARING else ErrorCode.none

    def leave(self, member_id: MemberId, now_s: float) -> tuple[ErrorCode, list[Reply]]:
        """Remove a member and share its part among the others."""
        if self._pending.pop(member_id, None) is not None:
            self._complete_if_all_joined(now_s)
        elif member_id in self.members:
            self._remove(member_id)
            self._rebalance(now_s)
        else:
            return ErrorCode.unknown_member_id, []
        return ErrorCode.none, self._take_replies()

    def commit_error(self, member_id: MemberId, generation: int, now_s: float) -> ErrorCode:
        """Whether offsets may be committed: by a member of this generation, or by anyone while it is empty.

        A commit keeps its member alive. One that was sent during a rebalance is accepted until the next
        generation begins.
        """
        if generation < 0 and not member_id and self.state is GroupState.EMPTY:
            return ErrorCode.none
        error = self._member_error(member_id, generation)
        if error is not ErrorCode.none:
            return error
        self._touch(self.members[member_id], now_s)
        if self.state is GroupState.COMPLETING:
            return ErrorCode.rebalance_in_progress
        return ErrorCode.none

    def next_deadline_s(self) -> float | None:
        """When `expire` must be called next, if ever."""
        deadlines = list(self._pending.values())
        deadlines += [
            member.session_deadline_s for member in self.members.values() if not _is_waiting(member)
        ]
        if self.state in {GroupState.PREPARING, GroupState.COMPLETING}:
            deadlines.append(self._deadline_s)
        return min(deadlines, default=None)

    def expire(self, now_s: float) -> list[Reply]:
        """Remove who is silent beyond the session timeout or holds up a rebalance beyond its deadline."""
        self._pending = {member: until_s for member, until_s in self._pending.items() if until_s > now_s}
        overdue = [
            member.member_id
            for member in self.members.values()
            if not _is_waiting(member) and self._is_overdue(member, now_s)
        ]
        for member_id in overdue:
            self._remove(member_id)
        if overdue:
            self._rebalance(now_s)
        else:
            self._complete_if_all_joined(now_s)
        return self._take_replies()

    def _is_overdue(self, member: Member, now_s: float) -> bool:
        rebalancing = self.state in {GroupState.PREPARING, GroupState.COMPLETING}
        return member.session_deadline_s <= now_s or (rebalancing and self._deadline_s <= now_s)

    def _join_error(self, member_id: MemberId, request: JoinRequest, *, is_new: bool) -> ErrorCode:
        known = member_id in self.members
        if not known and not is_new and member_id not in self._pending:
            return ErrorCode.unknown_member_id
        if is_new and len(self.members) + len(self._pending) >= self._max_members:
            return ErrorCode.group_max_size_reached
        others = [member for member in self.members.values() if member.member_id != member_id]
        if not request.protocols or not request.protocol_type:
            return ErrorCode.inconsistent_group_protocol
        if others:
            common = set(request.protocols).intersection(*(member.request.protocols for member in others))
            if request.protocol_type != self.protocol_type or not common:
                return ErrorCode.inconsistent_group_protocol
        return ErrorCode.none

    def _member_error(self, member_id: MemberId, generation: int) -> ErrorCode:
        if member_id not in self.members:
            return ErrorCode.unknown_member_id
        if generation != self.generation:
            return ErrorCode.illegal_generation
        return ErrorCode.none

    def _rebalance(self, now_s: float) -> None:
        if self.state is not GroupState.PREPARING:
            for member in self.members.values():
                if member.sync_ticket is not None:
                    self._replies.append((member.sync_ticket, Synced(ErrorCode.rebalance_in_progress)))
                    member.sync_ticket = None
                    self._touch(member, now_s)
                member.assignment = b""
            self.state = GroupState.PREPARING
            self._deadline_s = now_s + self._rebalance_timeout_s()
        self._complete_if_all_joined(now_s)

    def _complete_if_all_joined(self, now_s: float) -> None:
        if self.state is not GroupState.PREPARING or (self._pending and now_s < self._deadline_s):
            return
        if any(member.join_ticket is None for member in self.members.values()):
            return
        self.generation += 1
        if not self.members:
            self.state = GroupState.EMPTY
            self.protocol = ""
            self.leader = MemberId("")
            return
        self.state = GroupState.COMPLETING
        self.protocol = self._vote()
        if self.leader not in self.members:
            self.leader = next(iter(self.members))
        self._deadline_s = now_s + self._rebalance_timeout_s()
        for member in self.members.values():
            if member.join_ticket is not None:
                self._replies.append((member.join_ticket, self._joined(member)))
                member.join_ticket = None
                self._touch(member, now_s)

    def _settle(self, assignments: Mapping[MemberId, bytes], now_s: float) -> None:
        self.state = GroupState.STABLE
        for member in self.members.values():
            member.assignment = assignments.get(member.member_id, b"")
            if member.sync_ticket is not None:
                self._replies.append((member.sync_ticket, Synced(assignment=member.assignment)))
                member.sync_ticket = None
                self._touch(member, now_s)

    def _remove(self, member_id: MemberId) -> None:
        member = self.members.pop(member_id)
        if member.join_ticket is not None:
            error = Joined(error=ErrorCode.unknown_member_id, member_id=member_id)
            self._replies.append((member.join_ticket, error))
        if member.sync_ticket is not None:
            self._replies.append((member.sync_ticket, Synced(ErrorCode.unknown_member_id)))

    def _joined(self, member: Member) -> Joined:
        leads = member.member_id == self.leader
        return Joined(
            member_id=member.member_id,
            generation=self.generation,
            protocol=self.protocol,
            leader=self.leader,
            members={
                other.member_id: other.request.protocols[self.protocol] for other in self.members.values()
            }
            if leads
            else {},
        )

    def _vote(self) -> str:
        requests = [member.request for member in self.members.values()]
        common = set(requests[0].protocols).intersection(*(request.protocols for request in requests))
        votes = Counter(
            next(protocol for protocol in request.protocols if protocol in common) for request in requests
        )
        return votes.most_common(1)[0][0]

    def _rebalance_timeout_s(self) -> float:
        return max((member.request.rebalance_timeout_s for member in self.members.values()), default=0.0)

    def _take_replies(self) -> list[Reply]:
        replies, self._replies = self._replies, []
        return replies

    @staticmethod
    def _touch(member: Member, now_s: float) -> None:
        member.session_deadline_s = now_s + member.request.session_timeout_s


def _is_waiting(member: Member) -> bool:
    return member.join_ticket is not None or member.sync_ticket is not None
