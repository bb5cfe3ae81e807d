from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

from tlsy.broker.batch import Batch, first_record_since
from tlsy.broker.producers import Producers

_BATCH_OVERHEAD_BYTES: Final = 256
"""Python objects that hold one stored batch, measured with tracemalloc and rounded up."""
_RETENTION_STEPS: Final = 16


@dataclass(frozen=True, slots=True)
class Appended:
    """Where a batch is; `duplicate` says that it was there before."""

    base_offset: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class _Stored:
    raw: bytes
    max_timestamp_ms: int


class PartitionLog:
    """The records of one partition, oldest first, in bounded memory.

    Holds batches as they are served. Offsets are dense and never reused; `start_offset` grows when the
    oldest batches are dropped. Retention works in steps of a sixteenth, so that it costs an append
    nothing on average, and happens before an append: what was just acknowledged is never what is dropped.
    """

    def __init__(self, *, max_bytes: int, max_producers: int) -> None:
        self._max_bytes = max_bytes
        self._producers = Producers(max_producers)
        self._batches: list[_Stored] = []
        self._last_offsets: list[int] = []
        self.start_offset = 0
        self.end_offset = 0
        self.size_bytes = 0
        """Memory in use: stored bytes and what holding them costs."""

    def append(self, batch: Batch) -> Appended:
        """Store `batch` behind the last record, or find where it already is.

        Raises:
            InvalidBatchError: the producer's epoch or sequence forbids it.
        """
        if batch.producer_id >= 0:
            earlier = self._producers.duplicate_of(batch)
            if earlier is not None:
                return Appended(earlier, duplicate=True)
        size_bytes = stored_bytes(batch)
        if self.size_bytes + size_bytes > self._max_bytes:
            self.drop_oldest(self.size_bytes + size_bytes - self._max_bytes)
        base_offset = self.end_offset
        self._batches.append(_Stored(batch.at(base_offset), batch.max_timestamp_ms))
        self.end_offset += batch.record_count
        self._last_offsets.append(self.end_offset - 1)
        self.size_bytes += size_bytes
        if batch.producer_id >= 0:
            self._producers.record(batch, base_offset)
        return Appended(base_offset, duplicate=False)

    def read(self, offset: int, max_bytes: int, *, at_least_one: bool) -> bytes:
        """Whole batches from the one that holds `offset`, up to `max_bytes`.

        With `at_least_one` the first batch comes even if it is larger. The first batch may begin below
        `offset`: the reader skips. Nothing if `offset` is the end. The caller checks the range.
        """
        index = bisect_left(self._last_offsets, offset)
        chosen: list[bytes] = []
        room = max_bytes
        while index < len(self._batches):
            raw = self._batches[index].raw
            if len(raw) > room and (chosen or not at_least_one):
                break
            chosen.append(raw)
            room -= len(raw)
            index += 1
        return chosen[0] if len(chosen) == 1 else b"".join(chosen)

    def bytes_from(self, offset: int, wanted_bytes: int) -> int:
        """How many bytes from `offset` on are stored, counted up to `wanted_bytes`."""
        found = 0
        for index in range(bisect_left(self._last_offsets, offset), len(self._batches)):
            found += len(self._batches[index].raw)
            if found >= wanted_bytes:
                break
        return min(found, wanted_bytes)

    def first_since(self, timestamp_ms: int) -> tuple[int, int] | None:
        """Offset and timestamp (ms) of the first record not older than `timestamp_ms`; None if all are.

        Exact for uncompressed batches; for a compressed one, its first record.
        """
        for stored in self._batches:
            if stored.max_timestamp_ms >= timestamp_ms:
                return first_record_since(stored.raw, timestamp_ms)
        return None

    def drop_oldest(self, at_least_bytes: int) -> None:
        """Free at least so many bytes, or a sixteenth if that is more; `start_offset` moves."""
        target = max(at_least_bytes, self.size_bytes // _RETENTION_STEPS)
        freed = dropped = 0
        while freed < target and dropped < len(self._batches):
            freed += len(self._batches[dropped].raw) + _BATCH_OVERHEAD_BYTES
            dropped += 1
        if dropped:
            self.start_offset = self._last_offsets[dropped - 1] + 1
            self.size_bytes -= freed
            del self._batches[:dropped]
            del self._last_offsets[:dropped]


def stored_bytes(batch: Batch) -> int:
    """Memory that `batch` takes in a log."""
    return len(batch.raw) + _BATCH_OVERHEAD_BYTES
