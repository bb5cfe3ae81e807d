from __future__ import annotations

import struct
from typing import Final

from tlsy.broker.api import PRODUCE_KEY, MalformedRequestError

_SIZE: Final = struct.Struct(">i")
_API_KEY: Final = struct.Struct(">h")
_KEY_END: Final = _SIZE.size + _API_KEY.size


class Frames:
    """Cuts a byte stream into frames.

    A frame is checked against its limit as soon as its length and API key are there: a produce request
    may be large, any other may not.
    """

    def __init__(self, *, max_produce_bytes: int, max_other_bytes: int) -> None:
        self._max_produce_bytes = max_produce_bytes
        self._max_other_bytes = max_other_bytes
        self._buffer = bytearray()

    @property
    def buffered_bytes(self) -> int:
        """What has arrived and was not taken yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add what has arrived."""
        self._buffer += data

    def clear(self) -> int:
        """Drop what was not taken; answers how many bytes that were."""
        dropped = len(self._buffer)
        self._buffer.clear()
        return dropped

    def take(self) -> bytes | None:
        """The next whole frame without its length, None if it has not arrived yet.

        Raises:
            MalformedRequestError: the length is negative or beyond the limit.
        """
        if len(self._buffer) < _KEY_END:
            return None
        (size,) = _SIZE.unpack_from(self._buffer)
        is_produce = _API_KEY.unpack_from(self._buffer, _SIZE.size) == (PRODUCE_KEY,)
        limit = self._max_produce_bytes if is_produce else self._max_other_bytes
        if not 0 <= size <= limit:
            raise MalformedRequestError(f"a request of {size} bytes, allowed are {limit}")
        end = _SIZE.size + size
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            frame = bytes(view[_SIZE.size : end])
        del self._buffer[:end]
        return frame
