"""Events on disk until the server has them: an append-only queue that survives SIGKILL and power loss.

The queue is a folder of segment files, named by a growing number. A record is its length, its CRC-32, and the
bytes. A batch of records is written and synced before the agent counts it as collected; the reader's place
(segment, offset) is written to a file of its own, by rename, after the server has acknowledged. So a crash
repeats at most the batch that was under way, with the same ids: the server drops it as duplicates. A torn
record at the end of the last segment is cut off when the queue is opened; it had not been counted.

One process at a time: the folder is locked while it is open. Its calls may come from several threads.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import zlib
from typing import TYPE_CHECKING, BinaryIO, Final

from tlsy.agent.ports import BufferFullError, Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_HEAD: Final = struct.Struct("<II")
_PLACE: Final = struct.Struct("<QQ")
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
        # Collecting and delivering run in threads of their own; neither may see the other half done.
        self._one_call = threading.RLock()
        self._lock = (directory / "lock").open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise BufferInUseError(f"{directory} is in use by another agent; give each its own") from None
        self._place = self._read_place()
        last = max([*self._segments(), self._place.segment])
        self._tail = self._open_tail(last)
        self._tail_segment = last
        _sync_folder(directory)

    def append(self, records: Sequence[bytes]) -> None:
        """Adds records, all or none; on return they are on disk.

        Raises:
            BufferFullError: they do not fit.
            OSError: the disk refused; what was half-written is cut off again.
        """
        blob = b"".join(_HEAD.pack(len(r), zlib.crc32(r)) + r for r in records)
        with self._one_call:
            if self.size_bytes() + len(blob) > self._max_bytes:
                raise BufferFullError(f"{self._directory} holds its {self._max_bytes} bytes")
            if self._tail.tell() >= SEGMENT_BYTES:
                self._tail.close()
                self._tail_segment += 1
                self._tail = self._open_tail(self._tail_segment)
                _sync_folder(self._directory)
            self._write(blob)

    def _write(self, blob: bytes) -> None:
        start = self._tail.tell()
        try:
            self._tail.write(blob)
            self._tail.flush()
            os.fsync(self._tail.fileno())
        except OSError:
            self._tail.truncate(start)
            self._tail.seek(start)
            raise

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
                file.seek(start)
                for record in _records(file):
                    if len(found) == max_records or (found and total + len(record) > max_bytes):
                        return found, place
                    found.append(record)
                    total += len(record)
                    place = Place(segment, file.tell())
        return found, place

    def acknowledge(self, place: Place) -> None:
        """Forgets everything before `place`, for good."""
        with self._one_call:
            self._acknowledge(place)

    def _acknowledge(self, place: Place) -> None:
        scratch = self._directory / "place.new"
        with scratch.open("wb") as file:
            file.write(_PLACE.pack(place.segment, place.offset))
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self._directory / "place")
        _sync_folder(self._directory)
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
        self._tail.close()
        self._lock.close()

    def _path(self, segment: int) -> Path:
        return self._directory / f"{segment:012d}.events"

    def _segments(self) -> list[int]:
        return sorted(int(p.stem) for p in self._directory.glob("*.events"))

    def _read_place(self) -> Place:
        try:
            return Place(*_PLACE.unpack((self._directory / "place").read_bytes()))
        except FileNotFoundError:
            return Place(0, 0)

    def _open_tail(self, segment: int) -> BinaryIO:
        file = self._path(segment).open("a+b")
        file.seek(0)
        whole = 0
        for _ in _records(file):
            whole = file.tell()
        file.truncate(whole)
        file.seek(whole)
        return file


def _records(file: BinaryIO) -> Iterator[bytes]:
    """The whole records from the file's position on; ends at a torn or damaged one."""
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        length, checksum = _HEAD.unpack(head)
        record = file.read(length)
        if len(record) < length or zlib.crc32(record) != checksum:
            return
        yield record


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
