"""Record batches (message format v2) as opaque bytes with a checked header.

Kafka's CRC does not cover the base offset and the leader epoch, so a broker can place a batch in its
log by patching these two fields, without touching the (possibly compressed) records.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Final

from crc32c import crc32c
from kio.schema.errors import ErrorCode
from kio.serial.readers import read_signed_varint, read_signed_varlong

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_OFFSET: Final = struct.Struct(">q")
_CRC: Final = struct.Struct(">I")
_ATTRIBUTES: Final = struct.Struct(">h")
_EPOCH: Final = struct.Struct(">i")
_LENGTH_END: Final = 12
_EPOCH_END: Final = 16
_CRC_END: Final = 21
_MAX_TIMESTAMP: Final = 35
_MAGIC: Final = 2
_CODEC_MASK: Final = 0x07
_LAST_CODEC: Final = 4
_LOG_APPEND_TIME: Final = 0x08
_TRANSACTIONAL: Final = 0x10
_CONTROL: Final = 0x20

LEADER_EPOCH: Final = 0
"""The only leader epoch there is: one broker leads every partition for as long as it lives."""


class InvalidBatchError(Exception):
    """A batch that cannot be stored; `code` is what the producer is told."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A verified batch as the producer sent it; producer fields are -1 without idempotence."""

    raw: bytes
    record_count: int
    max_timestamp_ms: int
    producer_id: int
    producer_epoch: int
    base_sequence: int

    def at(self, base_offset: int) -> bytes:
        """The bytes to store and serve, placed at `base_offset`."""
        view = memoryview(self.raw)
        return b"".join(
            (
                _OFFSET.pack(base_offset),
                view[_OFFSET.size : _LENGTH_END],
                _EPOCH.pack(LEADER_EPOCH),
                view[_EPOCH_END:],
            )
        )

    def appended_at(self, time_ms: int) -> Batch:
        """The batch with the broker's time for all its records, whatever the producer gave them."""
        raw = bytearray(self.raw)
        (attributes,) = _ATTRIBUTES.unpack_from(raw, _CRC_END)
        _ATTRIBUTES.pack_into(raw, _CRC_END, attributes | _LOG_APPEND_TIME)
        _OFFSET.pack_into(raw, _MAX_TIMESTAMP, time_ms)
        _CRC.pack_into(raw, _CRC_END - _CRC.size, crc32c(memoryview(raw)[_CRC_END:]))
        return replace(self, raw=bytes(raw), max_timestamp_ms=time_ms)


def parse_batch(raw: bytes, *, max_bytes: int) -> Batch:
    """Verify the one batch of a produce request's partition.

    Checks size, format, checksum, record count and attributes; does not look into the records.

    Raises:
        InvalidBatchError: with the Kafka error code that describes the first fault found.
    """
    if len(raw) > max_bytes:
        raise InvalidBatchError(ErrorCode.message_too_large)
    if len(raw) < _HEADER.size:
        raise InvalidBatchError(ErrorCode.corrupt_message)
    (
        _,
        length,
        _,
        magic,
        crc,
        attributes,
        last_offset_delta,
        _,
        max_timestamp_ms,
        producer_id,
        producer_epoch,
        base_sequence,
        count,
    ) = _HEADER.unpack_from(raw)
    if magic != _MAGIC:
        raise InvalidBatchError(ErrorCode.unsupported_for_message_format)
    if length + _LENGTH_END < len(raw):
        raise InvalidBatchError(ErrorCode.invalid_record)
    if length + _LENGTH_END > len(raw) or crc != crc32c(memoryview(raw)[_CRC_END:]):
        raise InvalidBatchError(ErrorCode.corrupt_message)
    if count <= 0 or last_offset_delta != count - 1:
        raise InvalidBatchError(ErrorCode.invalid_record)
    if producer_id >= 0 and (producer_epoch < 0 or base_sequence < 0):
        raise InvalidBatchError(ErrorCode.invalid_record)
    _check_attributes(attributes)
    return Batch(
        raw=raw,
        record_count=count,
        max_timestamp_ms=max_timestamp_ms,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
    )


def _check_attributes(attributes: int) -> None:
    if attributes & _CONTROL:
        raise InvalidBatchError(ErrorCode.invalid_record)
    if attributes & _TRANSACTIONAL:
        raise InvalidBatchError(ErrorCode.transactional_id_authorization_failed)
    if attributes & _LOG_APPEND_TIME:
        raise InvalidBatchError(ErrorCode.invalid_timestamp)
    if attributes & _CODEC_MASK > _LAST_CODEC:
        raise InvalidBatchError(ErrorCode.unsupported_compression_type)


def first_record_since(stored: bytes, timestamp_ms: int) -> tuple[int, int]:
    """Offset and timestamp (ms) of a stored batch's first record that is not older than `timestamp_ms`.

    Compressed records are not opened: for them this is the batch's first record, which may be older, so
    that a reader starting there misses nothing. The same holds for records that do not parse, or lead back:
    the batch may say that it has two billions of them.
    """
    header = _HEADER.unpack_from(stored)
    base_offset, attributes, base_timestamp_ms, count = header[0], header[5], header[7], header[12]
    position = _HEADER.size
    if attributes & _LOG_APPEND_TIME:
        return base_offset, header[8]
    if attributes & _CODEC_MASK == 0:
        try:
            for _ in range(count):
                length, size = read_signed_varint(stored, position)
                if length <= 0:
                    break
                position += size
                timestamp_delta, delta_size = read_signed_varlong(stored, position + 1)
                offset_delta, _ = read_signed_varint(stored, position + 1 + delta_size)
                if base_timestamp_ms + timestamp_delta >= timestamp_ms:
                    return base_offset + offset_delta, base_timestamp_ms + timestamp_delta
                position += length
        except (ValueError, OverflowError, EOFError):
            pass  # records that cannot be read are the consumer's to refuse; the batch's own time is known
    return base_offset, base_timestamp_ms
