from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NewType, TypeVar

from kio.schema.errors import ErrorCode

from tlsy.broker.groups import (
    Group,
    Joined,
    JoinRequest,
    MemberId,
    Reply,
    Synced,
    Ticket,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from uuid import UUID

    from tlsy.broker.settings import BrokerSettings

GroupId = NewType("GroupId", str)
Answer = TypeVar("Answer", Joined, Synced)


@dataclass(frozen=True, slots=True)
class CommittedOffset:
    """How far a group has come in one partition, with a note of the client's."""

    offset: int
    leader_epoch: int
    metadata: str


@dataclass(slots=True)
class _Coordinated:
    group: Group
    offsets: dict[tuple[str, int], CommittedOffset] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None


class GroupCoordinator:
    """Runs the group state machines: gives them the time, wakes who waits, keeps committed offsets.

    A group without members and without offsets is forgotten. A waiting request that is cancelled (its
    connection closed) leaves the membership alone; the session timeout decides.
    """

    def __init__(self, settings: BrokerSettings, new_uuid: Callable[[], UUID]) -> None:
        self._settings = settings
        self._new_uuid = new_uuid
        self._groups: dict[GroupId, _Coordinated] = {}
        self._waiting: dict[Ticket, asyncio.Future[Joined | Synced]] = {}
        self._last_ticket = 0

    async def join(
        self, group_id: GroupId, member_id: MemberId, request: JoinRequest, *, announces: bool
    ) -> Joined:
        """Join a group and wait until its next generation begins.

        With `announces` a member without an id is told its id first, and to join again with it.
        """
        if not group_id:
            return Joined(error=ErrorCode.invalid_group_id, member_id=member_id)
        low_s, high_s = self._settings.min_session_timeout_s, self._settings.max_session_timeout_s
        if not low_s <= request.session_timeout_s <= high_s:
            return Joined(error=ErrorCode.invalid_session_timeout, member_id=member_id)
        coordinated = self._groups.get(group_id)
        if coordinated is None:
            if member_id:
                return Joined(error=ErrorCode.unknown_member_id, member_id=member_id)
            coordinated = self._new_group(group_id)
            if coordinated is None:
                return Joined(error=ErrorCode.group_max_size_reached, member_id=member_id)
        is_new = not member_id
        if is_new:
            member_id = MemberId(f"{request.client_id[:100]}-{self._new_uuid()}")
        if is_new and announces:
            error = coordinated.group.announce(member_id, request.session_timeout_s, self._now_s())
            self._apply(group_id, [])
            return Joined(error=error, member_id=member_id)
        ticket, future = self._new_ticket()
        replies = coordinated.group.join(ticket, member_id, request, self._now_s(), is_new=is_new)
        return await self._answer(group_id, ticket, future, replies, Joined)

    async def sync(
        self, group_id: GroupId, member_id: MemberId, generation: int, assignments: Mapping[MemberId, bytes]
    ) -> Synced:
        """Wait until the leader has assigned the partitions; the leader's call brings them."""
        coordinated = self._groups.get(group_id)
        if coordinated is None:
            return Synced(ErrorCode.unknown_member_id)
        ticket, future = self._new_ticket()
        replies = coordinated.group.sync(ticket, member_id, generation, assignments, self._now_s())
        return await self._answer(group_id, ticket, future, replies, Synced)

    def heartbeat(self, group_id: GroupId, member_id: MemberId, generation: int) -> ErrorCode:
        """Keep a member alive."""
        coordinated = self._groups.get(group_id)
        if coordinated is None:
            return ErrorCode.unknown_member_id
        error = coordinated.group.heartbeat(member_id, generation, self._now_s())
        self._apply(group_id, [])
        return error

    def leave(self, group_id: GroupId, member_id: MemberId) -> ErrorCode:
        """Take a member out at once."""
        coordinated = self._groups.get(group_id)
        if coordinated is None:
            return ErrorCode.unknown_member_id
        error, replies = coordinated.group.leave(member_id, self._now_s())
        self._apply(group_id, replies)
        return error

    def commit(
        self,
        group_id: GroupId,
        member_id: MemberId,
        generation: int,
        offsets: Mapping[tuple[str, int], CommittedOffset],
    ) -> ErrorCode:
        """Store offsets per (topic, partition), all or none; without membership it may begin a group."""
        if not group_id:
            return ErrorCode.invalid_group_id
        coordinated = self._groups.get(group_id)
        if coordinated is None:
            if generation >= 0 or member_id:
                return ErrorCode.illegal_generation
            coordinated = self._new_group(group_id)
            if coordinated is None:
                return ErrorCode.group_max_size_reached
        error = coordinated.group.commit_error(member_id, generation, self._now_s())
        if error is ErrorCode.none:
            coordinated.offsets.update(offsets)
        self._apply(group_id, [])
        return error

    def offsets(self, group_id: GroupId) -> Mapping[tuple[str, int], CommittedOffset]:
        """All committed offsets of a group, by (topic, partition); empty for an unknown group."""
        coordinated = self._groups.get(group_id)
        return coordinated.offsets if coordinated is not None else {}

    def forget_topic(self, topic: str) -> None:
        """Drop the offsets committed for a deleted topic: a new one of that name begins at zero."""
        for group_id, coordinated in tuple(self._groups.items()):
            coordinated.offsets = {
                place: committed for place, committed in coordinated.offsets.items() if place[0] != topic
            }
            self._apply(group_id, [])

    def group(self, group_id: GroupId) -> Group | None:
        """The group's state, to describe it."""
        coordinated = self._groups.get(group_id)
        return coordinated.group if coordinated is not None else None

    def groups(self) -> Iterator[tuple[GroupId, Group]]:
        """Every group there is."""
        for group_id, coordinated in self._groups.items():
            yield group_id, coordinated.group

    def close(self) -> None:
        """Stop the timers; who waits is the connections' concern."""
        for coordinated in self._groups.values():
            if coordinated.timer is not None:
                coordinated.timer.cancel()

    def _new_group(self, group_id: GroupId) -> _Coordinated | None:
        if len(self._groups) >= self._settings.max_groups:
            return None
        coordinated = _Coordinated(Group(max_members=self._settings.max_group_members))
        self._groups[group_id] = coordinated
        return coordinated

    def _new_ticket(self) -> tuple[Ticket, asyncio.Future[Joined | Synced]]:
        self._last_ticket += 1
        ticket = Ticket(self._last_ticket)
        future = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = future
        return ticket, future

    async def _answer(
        self,
        group_id: GroupId,
        ticket: Ticket,
        future: asyncio.Future[Joined | Synced],
        replies: list[Reply],
        kind: type[Answer],
    ) -> Answer:
        try:
            self._apply(group_id, replies)
            answer = await future
        finally:
            self._waiting.pop(ticket, None)
        if not isinstance(answer, kind):
            raise TypeError(f"ticket {ticket} was answered with {type(answer).__name__}")
        return answer

    def _apply(self, group_id: GroupId, replies: list[Reply]) -> None:
        for ticket, answer in replies:
            future = self._waiting.get(ticket)
            if future is not None and not future.done():
                future.set_result(answer)
        coordinated = self._groups[group_id]
        if coordinated.timer is not None:
            coordinated.timer.cancel()
            coordinated.timer = None
        if coordinated.group.is_forgettable and not coordinated.offsets:
            del self._groups[group_id]
            return
        deadline_s = coordinated.group.next_deadline_s()
        if deadline_s is not None:
            loop = asyncio.get_running_loop()
            coordinated.timer = loop.call_at(deadline_s, self._expire, group_id)

    def _expire(self, group_id: GroupId) -> None:
        self._apply(group_id, self._groups[group_id].group.expire(self._now_s()))

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()
