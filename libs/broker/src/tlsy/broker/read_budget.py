from __future__ import annotations

from typing import Final, Protocol

_ALWAYS_READ_BYTES: Final = 64 * 1024


class Reading(Protocol):
    """A connection, as far as the budget needs it."""

    def read_on(self) -> None:
        """Ask again whether it may read, and do."""
        ...


class ReadBudget:
    """The memory of requests that have not arrived wholly, over all connections.

    Beyond it only those read on that have little yet, so that small requests always get through, and one
    other at a time, so that there is always one that gets done. The others wait in order of their asking.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._favoured: Reading | None = None
        self._waiting: dict[Reading, None] = {}

    @property
    def held_bytes(self) -> int:
        """What all connections have buffered."""
        return self._held_bytes

    def add(self, count: int) -> None:
        """So many bytes have arrived."""
        self._held_bytes += count

    def may_read(self, reading: Reading, buffered_bytes: int) -> bool:
        """Whether a connection with so much buffered may read on; if not, it is told when to ask again."""
        if self._held_bytes < self._limit_bytes or buffered_bytes <= _ALWAYS_READ_BYTES:
            return True
        if self._favoured in {None, reading}:
            self._favoured = reading
            return True
        self._waiting.setdefault(reading)
        return False

    def release(self, reading: Reading, count: int) -> None:
        """A request of so many bytes arrived wholly, or its connection ended."""
        self._held_bytes -= count
        if self._favoured is reading:
            self._favoured = None
        waiting, self._waiting = self._waiting, {}
        for other in waiting:
            other.read_on()

    def forget(self, reading: Reading, buffered_bytes: int) -> None:
        """The connection ended."""
        self._waiting.pop(reading, None)
        self.release(reading, buffered_bytes)
