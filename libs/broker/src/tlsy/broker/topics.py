from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kio.schema.errors import ErrorCode

from tlsy.broker.log import Appended, PartitionLog, stored_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tlsy.broker.batch import Batch
    from tlsy.broker.settings import BrokerSettings

_NAME: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")


class TopicError(Exception):
    """A topic cannot be created, changed or deleted as asked."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """A log, and who is to be called when it grows or goes away.

    `append_time` says that its records have the broker's time and not the producers'.
    """

    log: PartitionLog
    append_time: bool = False
    listeners: set[Callable[[], None]] = field(default_factory=set)

    def notify(self) -> None:
        """Call every listener once."""
        for listener in tuple(self.listeners):
            listener()


class TopicStore:
    """All topics of the broker, within the limits of its settings.

    When all records together would exceed `max_total_bytes`, the largest partition drops its oldest:
    who uses most pays, so a flooded topic does not push out the others.
    """

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._topics: dict[str, list[Partition]] = {}
        self._append_time: set[str] = set()
        self._partition_count = 0
        self.size_bytes = 0
        """Memory that all records take."""

    def names(self) -> tuple[str, ...]:
        """Every topic, oldest first."""
        return tuple(self._topics)

    def partitions(self, name: str) -> tuple[Partition, ...]:
        """The partitions by index; empty if there is no such topic."""
        return tuple(self._topics.get(name, ()))

    def partition(self, name: str, index: int) -> Partition | None:
        """One partition, if it exists."""
        partitions = self._topics.get(name, ())
        return partitions[index] if 0 <= index < len(partitions) else None

    def create(
        self, name: str, count: int, *, append_time: bool = False, validate_only: bool = False
    ) -> None:
        """Create a topic of `count` empty partitions; with `append_time` its records get the broker's time.

        Raises:
            TopicError: INVALID_TOPIC_EXCEPTION, TOPIC_ALREADY_EXISTS, INVALID_PARTITIONS or
                POLICY_VIOLATION (a limit of the settings).
        """
        check_name(name)
        if name in self._topics:
            raise TopicError(ErrorCode.topic_already_exists, f"Topic '{name}' already exists.")
        if count <= 0:
            raise TopicError(ErrorCode.invalid_partitions, "The number of partitions must be positive.")
        if len(self._topics) >= self._settings.max_topics:
            raise TopicError(
                ErrorCode.policy_violation, f"The limit of {self._settings.max_topics} topics is reached."
            )
        self._check_room(count)
        if not validate_only:
            self._topics[name] = []
            if append_time:
                self._append_time.add(name)
            self._add_partitions(name, count)

    def grow(self, name: str, count: int, *, validate_only: bool = False) -> None:
        """Add partitions until the topic has `count`.

        Raises:
            TopicError: UNKNOWN_TOPIC_OR_PARTITION, INVALID_PARTITIONS (not more than now) or
                POLICY_VIOLATION.
        """
        if name not in self._topics:
            raise TopicError(ErrorCode.unknown_topic_or_partition, f"Topic '{name}' does not exist.")
        present = len(self._topics[name])
        if count <= present:
            raise TopicError(
                ErrorCode.invalid_partitions, f"Topic '{name}' has {present} partitions already."
            )
        self._check_room(count - present)
        if not validate_only:
            self._add_partitions(name, count - present)

    def delete(self, name: str) -> None:
        """Drop a topic with its records and wake its readers.

        Raises:
            TopicError: UNKNOWN_TOPIC_OR_PARTITION.
        """
        partitions = self._topics.pop(name, None)
        if partitions is None:
            raise TopicError(ErrorCode.unknown_topic_or_partition, f"Topic '{name}' does not exist.")
        self._append_time.discard(name)
        self._partition_count -= len(partitions)
        for partition in partitions:
            self.size_bytes -= partition.log.size_bytes
            partition.notify()

    def append(self, partition: Partition, batch: Batch, now_ms: int) -> Appended:
        """Store a batch, after making room for it, and wake the partition's readers.

        `now_ms` is the time of records that get the broker's.

        Raises:
            InvalidBatchError: the producer's epoch or sequence forbids it.
        """
        if partition.append_time:
            batch = batch.appended_at(now_ms)
        self._make_room(stored_bytes(batch))
        before = partition.log.size_bytes
        appended = partition.log.append(batch)
        self.size_bytes += partition.log.size_bytes - before
        if not appended.duplicate:
            partition.notify()
        return appended

    def _make_room(self, size_bytes: int) -> None:
        while (excess := self.size_bytes + size_bytes - self._settings.max_total_bytes) > 0:
            largest = max(self._all_partitions(), key=lambda partition: partition.log.size_bytes).log
            before = largest.size_bytes
            largest.drop_oldest(excess)
            self.size_bytes -= before - largest.size_bytes

    def _check_room(self, count: int) -> None:
        if self._partition_count + count > self._settings.max_partitions:
            raise TopicError(
                ErrorCode.policy_violation,
                f"The limit of {self._settings.max_partitions} partitions would be exceeded.",
            )

    def _add_partitions(self, name: str, count: int) -> None:
        self._topics[name].extend(
            Partition(
                PartitionLog(
                    max_bytes=self._settings.max_partition_bytes,
                    max_producers=self._settings.max_producers_per_partition,
                ),
                append_time=name in self._append_time,
            )
            for _ in range(count)
        )
        self._partition_count += count

    def _all_partitions(self) -> Iterator[Partition]:
        for partitions in self._topics.values():
            yield from partitions


def check_name(name: str) -> None:
    """Apply Apache Kafka's rules for topic names.

    Raises:
        TopicError: INVALID_TOPIC_EXCEPTION.
    """
    if name in {".", ".."} or _NAME.fullmatch(name) is None:
        raise TopicError(
            ErrorCode.invalid_topic_exception,
            "A topic name has 1 to 249 of the characters a-z, A-Z, 0-9, '.', '_' and '-', "
            "and is not '.' or '..'.",
        )
