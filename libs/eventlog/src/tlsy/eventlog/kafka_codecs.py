"""Takes the compression off a batch, of each codec that Kafka has, and makes no more of it than a bound.

aiokafka has no bound: a batch of 1 MiB may be one of 1 GiB, and whoever wrote it may want that.
"""

from __future__ import annotations

import importlib
import mmap
import struct
import zlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch
from cramjam import lz4, snappy, zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Body = bytes | memoryview

#: Of a batch without its compression; as it is sent it is 1 MiB.
MAX_BODY_BYTES: Final = 8 * 1024 * 1024
_GZIP_WINDOW: Final = 31
#: What Java's snappy begins with, and other clients'; two versions follow, then blocks with their lengths.
_XERIAL: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES: Final = 16
#: No client makes blocks of less than 1 KiB, and each costs some microseconds, also if it holds nothing.
_MAX_BLOCKS: Final = MAX_BODY_BYTES // 1024
_LENGTH: Final = struct.Struct(">I")


def _ungzip(body: Body) -> bytes:
    inflater = zlib.decompressobj(_GZIP_WINDOW)
    inflated = inflater.decompress(body, MAX_BODY_BYTES)
    if not inflater.eof:
        raise CorruptRecordException(f"a batch is cut, or of more than {MAX_BODY_BYTES} bytes")
    return inflated


def _unsnappy(body: Body) -> bytes:
    found = bytearray()
    for block in _blocks(memoryview(body)):
        # A block says how long it becomes, and is corrupt if that is not so.
        if len(found) + snappy.decompress_raw_len(block) > MAX_BODY_BYTES:
            raise CorruptRecordException(f"a batch is of more than {MAX_BODY_BYTES} bytes")
        found += snappy.decompress_raw(block)
    return bytes(found)


def _blocks(body: memoryview) -> Iterator[memoryview]:
    if bytes(body[: len(_XERIAL)]) != _XERIAL:
        yield body
        return
    at = _XERIAL_HEADER_BYTES
    for _ in range(_MAX_BLOCKS):
        if at == len(body):
            return
        (size,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size + size
        if at > len(body):
            raise CorruptRecordException("a batch is cut")
        yield body[at - size : at]
    raise CorruptRecordException(f"a batch has more than {_MAX_BLOCKS} blocks")


def _unlz4(body: Body) -> bytes:
    return _written(lz4.decompress_into, body)


def _unzstd(body: Body) -> bytes:
    return _written(zstd.decompress_into, body)


def _written(decompress_into: Callable[[Body, mmap.mmap], int], body: Body) -> bytes:
    # Of the memory only what is written is taken; to fill a bytearray of that size takes a millisecond.
    with mmap.mmap(-1, MAX_BODY_BYTES) as written:
        return written[: decompress_into(body, written)]


#: By the number that a batch has of its codec. They raise CorruptRecordException, zlib.error, struct.error,
#: cramjam.DecompressionError for what is corrupt, cut or of more than MAX_BODY_BYTES.
DECODERS: Final[Mapping[int, Callable[[Body], bytes]]] = MappingProxyType(
    {0: bytes, 1: _ungzip, 2: _unsnappy, 3: _unlz4, 4: _unzstd}
)


def limit_batches() -> None:
    """Has aiokafka read batches by these, too."""
    batches = importlib.import_module(DefaultRecordBatch.__module__)
    for codec, name in enumerate(("gzip_decode", "snappy_decode", "lz4_decode", "zstd_decode"), 1):
        setattr(batches, name, DECODERS[codec])  # aiokafka has no setting for it
