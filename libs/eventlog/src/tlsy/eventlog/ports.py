"""What the event log needs of a broker, and of whoever knows the databases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import datetime

    from tlsy.tenancy.context import Placement

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicPartition:
    """One ordered log."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record to write; records of one key keep their order."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A record as it was read; `time` is the broker's own, of appending, or what its producer said."""

    topic: str
    partition: int
    offset: int
    time: datetime
    key: bytes | None
    value: bytes
    headers: Headers
    time_of_broker: bool = False


@dataclass(frozen=True, slots=True)
class Position:
    """Where a record was written."""

    partition: int
    offset: int


class Producer(Protocol):
    """Writes records, acknowledged by all replicas, each once however often the connection breaks."""

    async def publish(self, records: Sequence[Record], *, timeout_s: float) -> list[Position | None]:
        """Write `records`; None where there was no acknowledgement in time.

        In each partition the acknowledged ones come first: none is written after one that was not.
        Raises LogUnavailable when nothing could be sent at all, RecordTooLarge when the broker refused one
        for its size.
        """
        ...


class LogInspector(Protocol):
    """What identifies a broker's log and how far it reaches."""

    async def cluster_id(self) -> str:
        """The id of the cluster, asked anew. Raises LogUnavailable."""
        ...

    async def end_offsets(self, topic: str) -> Mapping[int, int]:
        """Partition to the offset that its next record gets. Raises LogUnavailable."""
        ...

    async def letters(self, topic: str, group: str) -> tuple[int, datetime | None]:
        """The group's dead letters about `topic` that nobody is done with: how many, since when.

        Raises LogUnavailable.
        """
        ...

    async def ensure_topics(self, partitions: Mapping[str, int]) -> None:
        """Make the topics that are missing, with that many partitions each. Raises LogUnavailable."""
        ...


class GroupReader(Protocol):
    """A member of a consumer group."""

    async def start(
        self,
        on_assigned: Callable[[Sequence[TopicPartition]], Awaitable[None]],
        on_revoked: Callable[[Sequence[TopicPartition]], Awaitable[None]],
    ) -> None:
        """Join; the callbacks run whenever the group's partitions are dealt anew."""
        ...

    async def fetch(self, partition: TopicPartition, *, max_records: int, timeout_s: float) -> list[Received]:
        """The next records of one assigned partition, in order; empty after `timeout_s`."""
        ...

    async def ends(self, topic: str) -> Mapping[int, int]:
        """Each partition to the offset that its next record gets, whoever reads it. Raises LogUnavailable."""
        ...

    async def starts(self, topic: str) -> Mapping[int, int]:
        """Each partition to where the broker's records begin, whoever reads it. Raises LogUnavailable."""
        ...

    async def oldest(self, partition: TopicPartition) -> int:
        """Where the broker's records begin. Raises LogUnavailable."""
        ...

    async def rewind(self, partition: TopicPartition) -> None:
        """Fetch the partition from the oldest record that the broker has. Raises LogUnavailable."""
        ...

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Record the next offset to read. Raises LogUnavailable; also when the partition was lost."""
        ...

    async def committed(self, partition: TopicPartition) -> int | None:
        """The next offset that the group recorded with the broker. Raises LogUnavailable."""
        ...

    async def lag(self) -> Mapping[TopicPartition, int]:
        """Records not yet fetched, per assigned partition, asked anew; without those that are unknown."""
        ...

    async def stop(self) -> None:
        """Leave the group."""
        ...


class Tail(Protocol):
    """Reads topics from their end, in no group."""

    async def open(self) -> None:
        """Fix the position at the present end of every partition. Raises LogUnavailable."""
        ...

    async def fetch(self, *, max_records: int, timeout_s: float) -> list[Received]:
        """The next records; empty after `timeout_s`. Raises LogUnavailable."""
        ...

    async def lost(self) -> bool:
        """Whether the log is another than the one opened, or shorter than what was read."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...


class PlacementSource(Protocol):
    """Knows every database of the installation."""

    def databases(self) -> Sequence[OutboxDatabase]:
        """The control database and every database that holds tenants; grows and shrinks with them."""
        ...


@dataclass(frozen=True, slots=True)
class OutboxDatabase:
    """A database with an outbox.

    Attributes:
        placement: where it is; the schema says nothing here.
        notifies: whether writers wake the relay by NOTIFY (control and common databases, unless a pooler in
            transaction mode is in between).
    """

    placement: Placement
    notifies: bool
