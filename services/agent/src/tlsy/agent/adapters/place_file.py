"""Where the reader of the buffer stands, on disk: in a file that never grows."""

from __future__ import annotations

import os
import struct
import zlib
from io import FileIO
from typing import TYPE_CHECKING, Final

import structlog

from tlsy.agent.ports import Place

if TYPE_CHECKING:
    from pathlib import Path

_log = structlog.get_logger(__name__)
#: Count, segment, offset, and the CRC-32 of these. The higher count is the later one.
_SLOT: Final = struct.Struct("<QQQ")
_CHECKED: Final = struct.Struct("<QQQI")
#: A torn write harms one sector, and so one slot.
_SLOT_BYTES: Final = 4096


class PlaceFile:
    """Two slots, overwritten by turns: the one that a crash tears leaves the other."""

    def __init__(self, path: Path) -> None:
        self._file = open_raw(path)
        self._count = 0
        size = os.fstat(self._file.fileno()).st_size
        if size < 2 * _SLOT_BYTES:
            os.pwrite(self._file.fileno(), bytes(2 * _SLOT_BYTES - size), size)
            os.fsync(self._file.fileno())
            sync_folder(path.parent)

    def read(self) -> Place:
        """The place that was written last; the beginning if there is none, or it cannot be read."""
        slots = [os.pread(self._file.fileno(), _CHECKED.size, at) for at in (0, _SLOT_BYTES)]
        whole = [
            members
            for *members, checksum in map(_CHECKED.unpack, slots)
            if members[0] and zlib.crc32(_SLOT.pack(*members)) == checksum
        ]
        if whole:
            self._count, segment, offset = max(whole)
            return Place(segment, offset)
        if any(map(any, slots)):
            _log.error("the place is lost: all that is on disk is sent again", file=self._file.name)
        return Place(0, 0)

    def write(self, place: Place) -> None:
        """On return it is on disk.

        Raises:
            OSError: it may or may not be.
        """
        count = self._count + 1
        slot = _SLOT.pack(count, place.segment, place.offset)
        blob = slot + zlib.crc32(slot).to_bytes(4, "little")
        os.pwrite(self._file.fileno(), blob, count % 2 * _SLOT_BYTES)
        os.fsync(self._file.fileno())
        self._count = count

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()


def open_raw(path: Path) -> FileIO:
    """A file to be read and written without a buffer, made if it is not there; its owner's alone."""
    return FileIO(path, "r+", opener=lambda name, _: os.open(name, os.O_RDWR | os.O_CREAT, 0o600))


def sync_folder(path: Path) -> None:
    """What was made or renamed in it survives a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
