from __future__ import annotations

import struct
from typing import Final

from tlsy.broker.api import MalformedRequestError

_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")
_HEADER_START: Final = 8
_ACKS_AND_TIMEOUT: Final = 6


def check_produce_shape(frame: bytes, *, max_parts: int) -> None:
    """Count the topics and partitions of a produce request (versions 3 to 8) without decoding it.

    A produce request may be large because of its records. The same bytes could instead name millions of
    empty topics, whose decoding would hold up every other client.

    Raises:
        MalformedRequestError: there are more than `max_parts` topics and partitions, or the frame is torn.
    """
    parts = 0
    try:
        position = _behind_string(frame, _behind_string(frame, _HEADER_START)) + _ACKS_AND_TIMEOUT
        (topics,) = _INT32.unpack_from(frame, position)
        position += _INT32.size
        for _ in range(topics):
            position = _behind_string(frame, position)
            (partitions,) = _INT32.unpack_from(frame, position)
            position += _INT32.size
            parts += 1 + max(partitions, 0)
            if parts > max_parts:
                raise MalformedRequestError(f"a produce request of more than {max_parts} parts")
            for _ in range(partitions):
                (size,) = _INT32.unpack_from(frame, position + _INT32.size)
                position += 2 * _INT32.size + max(size, 0)
    except struct.error as error:
        raise MalformedRequestError("a torn produce request") from error


def _behind_string(frame: bytes, position: int) -> int:
    size: int = _INT16.unpack_from(frame, position)[0]
    return position + _INT16.size + max(size, 0)
