"""What the handlers need: something to read, a place to keep events, and a server to take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlsy.agent.domain.readings import Reading
    from tlsy.contracts.ingestion.v1 import ingestion_pb2


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of a batch.

    Attributes:
        deferred: indexes of events to be sent again.
        rejected: (index, reason, message) of events that the server will never take.
        retry_after_s: how long to wait before the deferred ones are sent again.
    """

    deferred: tuple[int, ...]
    rejected: tuple[tuple[int, str, str], ...]
    retry_after_s: float | None


class DeliveryError(Exception):
    """The batch was not taken and is to be sent again, not before `retry_after_s` if that is given."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Server(Protocol):
    """Where events go."""

    async def deliver(self, events: Sequence[ingestion_pb2.Event]) -> Delivered:
        """Sends a batch and returns after the server has stored it.

        Raises:
            DeliveryError: it was not stored, or nobody knows.
        """


class BufferFullError(Exception):
    """The buffer holds as much as it may; nothing was written."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where in the buffer the next record begins."""

    segment: int
    offset: int


class Buffer(Protocol):
    """A queue on disk; the calls block."""

    def append(self, records: Sequence[bytes]) -> None:
        """Adds records, all or none; on return they survive a crash.

        Raises:
            BufferFullError: they do not fit.
            OSError: the disk refused.
        """

    def peek(self, max_records: int, max_bytes: int) -> tuple[list[bytes], Place]:
        """The oldest records, and the place behind them.

        Raises:
            OSError: the disk cannot be read.
        """

    def acknowledge(self, place: Place) -> None:
        """Forgets everything before `place`, for good.

        Raises:
            OSError: the disk refused; it is to be called again.
        """


class Readings(Protocol):
    """This host and what it can reach."""

    async def read(self) -> Sequence[Reading]:
        """Everything once; what cannot be read is left out, what is down is a reading."""
