"""Events on disk until the server has them: an append-only queue that survives SIGKILL and power loss.

The queue is a folder of segment files, named by a growing number. A record is its length, its CRC-32, and the
bytes. A batch of records is written and synced before the agent counts it as collected. The reader's place is
kept in a file of its own with two slots, each with a CRC, that are overwritten by turns after the server has
acknowledged: that takes no room, so a full disk can be emptied. A crash repeats at most the batch that was
under way, with the same ids: the server drops it as duplicates.

What cannot be read is passed over, with its size in the log, and the whole records behind it are delivered.
If there is none behind it, it is torn: it was never counted, and is cut off when the queue is opened.

One process at a time: the folder is locked while it is open. Its calls may come from several threads.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Final

import structlog

from tlsy.agent.adapters.place_file import PlaceFile, open_raw, sync_folder
from tlsy.agent.ports import BufferFullError, Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import FileIO
    from pathlib import Path

_log = structlog.get_logger(__name__)
_HEAD: Final = struct.Struct("<II")
_SEGMENT_NAMES: Final = "[0-9]" * 12 + ".events"
SEGMENT_BYTES: Final = 4 * 1024 * 1024


class BufferInUseError(Exception):
    """Another process has the folder open."""


class DiskBuffer:
    """A queue of byte records in `directory`, of at most `max_bytes` in all."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        """Opens or makes the queue.

        Raises:
            BufferInUseError: another process has it.
        """
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self._max_bytes = max_bytes
        self._tail: FileIO | None = None
        self._end = 0
        # Collecting and delivering run in threads of their own; neither may see the other half done.
        self._one_call = threading.RLock()
        self._lock = (directory / "lock").open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise BufferInUseError(f"{directory} is in use by another agent; give each its own") from None
        self._place_file = PlaceFile(directory / "place")
        self._place = self._sound_place()
        self._tail_segment = max([*self._segments(), self._place.segment])
        self._open_tail()

    def append(self, records: Sequence[bytes]) -> None:
        """Adds records, all or none; on return they are on disk.

        Raises:
            BufferFullError: they do not fit.
            OSError: the disk refused; what was half-written is never read.
        """
        blob = b"".join(_HEAD.pack(len(r), zlib.crc32(r)) + r for r in records)
        with self._one_call:
            if self.size_bytes() + len(blob) > self._max_bytes:
                raise BufferFullError(f"{self._directory} holds its {self._max_bytes} bytes")
            if self._end >= SEGMENT_BYTES:
                self._next_segment()
            try:
                self._write(blob)
            except OSError:
                if self._peek(1, 1)[0]:
                    raise
                # All is delivered, but its files still take the room that these need. The writer goes there
                # first: were the place ahead of it, what it writes next would never be read.
                self._next_segment()
                self.acknowledge(Place(self._tail_segment, 0))
                self._write(blob)

    def _write(self, blob: bytes) -> None:
        file = self._tail or self._open_tail()
        try:
            # After a failure something may still stand there.
            file.truncate(self._end)
            file.seek(self._end)
            rest = memoryview(blob)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(self._end)
            raise
        self._end += len(blob)

    def peek(self, max_records: int, max_bytes: int) -> tuple[list[bytes], Place]:
        """The oldest records, and the place behind them, to be given to `acknowledge`."""
        with self._one_call:
            return self._peek(max_records, max_bytes)

    def _peek(self, max_records: int, max_bytes: int) -> tuple[list[bytes], Place]:
        found: list[bytes] = []
        place, total = self._place, 0
        for segment in [s for s in self._segments() if s >= place.segment]:
            start = place.offset if segment == self._place.segment else 0
            if segment != place.segment:
                place = Place(segment, 0)
            with self._path(segment).open("rb") as file:
                end = self._end if segment == self._tail_segment else os.fstat(file.fileno()).st_size
                file.seek(start)
                for record in _records(file, end):
                    if len(found) == max_records or (found and total + len(record) > max_bytes):
                        return found, place
                    found.append(record)
                    total += len(record)
                    place = Place(segment, file.tell())
        return found, place

    def acknowledge(self, place: Place) -> None:
        """Forgets everything before `place`, for good.

        Raises:
            OSError: the disk refused; it is to be called again.
        """
        with self._one_call:
            self._place_file.write(place)
            self._place = place
            for segment in self._segments():
                if segment < place.segment:
                    self._path(segment).unlink()

    def size_bytes(self) -> int:
        """Bytes that wait."""
        with self._one_call:
            return sum(self._path(s).stat().st_size for s in self._segments()) - self._place.offset

    def close(self) -> None:
        """Lets another process have the folder."""
        if self._tail is not None:
            self._tail.close()
        self._place_file.close()
        self._lock.close()

    def _path(self, segment: int) -> Path:
        return self._directory / f"{segment:012d}.events"

    def _segments(self) -> list[int]:
        # A copy that somebody made in the folder has another name, and is nothing of the queue.
        return sorted(int(p.stem) for p in self._directory.glob(_SEGMENT_NAMES))

    def _sound_place(self) -> Place:
        """The place in the file, within what is there; the beginning sends all again, which harms nobody."""
        place = self._place_file.read()
        size = self._path(place.segment).stat().st_size if place.segment in self._segments() else 0
        if place.offset > size:
            # Written too, or records that follow would take the place of delivered ones.
            place = Place(place.segment, size)
            self._place_file.write(place)
        return place

    def _next_segment(self) -> None:
        if self._tail is not None:
            self._tail.close()
        self._tail, self._end = None, 0
        self._tail_segment += 1

    def _open_tail(self) -> FileIO:
        """Opens the last segment, made if it is not there, and cuts off what is torn at its end."""
        path = self._path(self._tail_segment)
        file = open_raw(path)
        # What is delivered needs no check, and no damage in it matters any more.
        end = self._place.offset if self._tail_segment == self._place.segment else 0
        with path.open("rb") as reader:
            reader.seek(end)
            for _ in _records(reader, path.stat().st_size):
                end = reader.tell()
        file.truncate(end)
        sync_folder(self._directory)
        self._tail, self._end = file, end
        return file


def _records(file: BinaryIO, end: int) -> Iterator[bytes]:
    """The whole records from the file's position up to `end`; what is none of them is passed over."""
    while (start := file.tell()) < end:
        rest = file.read(min(end - start, _HEAD.size))
        size = _HEAD.unpack(rest)[0] if len(rest) == _HEAD.size else 0
        if 0 < size <= end - file.tell():
            rest += file.read(size)
        if _whole_at(rest, 0):
            yield rest[_HEAD.size :]
            continue
        file.seek(start)
        rest = file.read(end - start)
        passed_over = next((at for at in range(1, len(rest)) if _whole_at(rest, at)), len(rest))
        _log.error("what is on disk cannot be read", file=file.name, offset=start, lost_bytes=passed_over)
        file.seek(start + passed_over)


def _whole_at(blob: bytes, at: int) -> bool:
    """Whether a whole record begins there."""
    begin = at + _HEAD.size
    if begin >= len(blob):
        return False
    length: int
    checksum: int
    length, checksum = _HEAD.unpack_from(blob, at)
    # No record is empty: zeros are what a file system leaves where it never came to write.
    return (
        0 < length <= len(blob) - begin and zlib.crc32(memoryview(blob)[begin : begin + length]) == checksum
    )
