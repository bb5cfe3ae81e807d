from __future__ import annotations

import struct
import time

import pytest
from crc32c import crc32c
from kio.records.readers import read_batch
from kio.schema.errors import ErrorCode

from tlsy.broker.batch import InvalidBatchError, first_record_since, parse_batch

LIMIT = 100_000


def patched(raw, position, replacement, *, fix_crc=True):
    changed = bytearray(raw)
    changed[position : position + len(replacement)] = replacement
    if fix_crc:
        changed[17:21] = struct.pack(">I", crc32c(bytes(changed[21:])))
    return bytes(changed)


def refusal(raw, limit=LIMIT):
    with pytest.raises(InvalidBatchError) as caught:
        parse_batch(raw, max_bytes=limit)
    return caught.value.code


def test_a_batch_is_placed_without_touching_its_records(batch):
    raw = batch(b"one", b"two")
    placed = parse_batch(raw, max_bytes=LIMIT).at(1234)
    read, size = read_batch(placed, 0)
    assert (size, read.base_offset, [record.offset for record in read.records]) == (
        len(raw),
        1234,
        [1234, 1235],
    )
    assert placed[16:] == raw[16:]


@pytest.mark.parametrize(
    ("position", "replacement", "code"),
    [
        (16, b"\x01", ErrorCode.unsupported_for_message_format),
        (8, struct.pack(">i", 10_000), ErrorCode.corrupt_message),
        (8, struct.pack(">i", 50), ErrorCode.invalid_record),
        (21, struct.pack(">h", 0x20), ErrorCode.invalid_record),
        (21, struct.pack(">h", 0x10), ErrorCode.transactional_id_authorization_failed),
        (21, struct.pack(">h", 0x08), ErrorCode.invalid_timestamp),
        (21, struct.pack(">h", 0x05), ErrorCode.unsupported_compression_type),
        (23, struct.pack(">i", 5), ErrorCode.invalid_record),
        (57, struct.pack(">i", 0), ErrorCode.invalid_record),
        (43, struct.pack(">qhi", 7, -1, 0), ErrorCode.invalid_record),
        (43, struct.pack(">qhi", 7, 0, -1), ErrorCode.invalid_record),
    ],
)
def test_a_batch_with_a_wrong_header_is_refused(batch, position, replacement, code):
    assert refusal(patched(batch(b"one"), position, replacement)) is code


def test_a_batch_with_a_wrong_checksum_is_refused(batch):
    raw = batch(b"one")
    assert refusal(patched(raw, len(raw) - 1, b"\xff", fix_crc=False)) is ErrorCode.corrupt_message


def test_a_batch_beyond_the_limit_is_refused(batch):
    raw = batch(b"one")
    assert refusal(raw, limit=len(raw) - 1) is ErrorCode.message_too_large
    assert parse_batch(raw, max_bytes=len(raw)).record_count == 1


@pytest.mark.parametrize("size", [0, 1, 60])
def test_a_torn_batch_is_refused(batch, size):
    assert refusal(batch(b"one")[:size]) is ErrorCode.corrupt_message


def test_the_first_record_since_a_time_is_found_inside_a_batch(batch):
    stored = parse_batch(batch(b"1", b"2", b"3", times_s=(100, 105, 110)), max_bytes=LIMIT).at(50)
    assert first_record_since(stored, 101_000) == (51, 105_000)


def test_in_a_compressed_batch_it_is_the_first_record_of_the_batch(batch):
    raw = patched(batch(b"1", b"2", times_s=(100, 105)), 21, struct.pack(">h", 1))
    assert first_record_since(parse_batch(raw, max_bytes=LIMIT).at(50), 101_000) == (50, 100_000)


@pytest.mark.parametrize("length", [b"\x00", b"\x01"])
def test_a_record_that_leads_back_is_not_followed(batch, length):
    """Of 0 and -1 bytes: the next one would be the same again, as often as the batch says it has records."""
    count = 4_000_000
    raw = patched(batch(b"1", times_s=(100,)), 61, length)
    raw = patched(patched(raw, 23, struct.pack(">i", count - 1)), 57, struct.pack(">i", count))
    stored = parse_batch(raw, max_bytes=LIMIT).at(50)
    begun = time.process_time()
    assert first_record_since(stored, 101_000) == (50, 100_000)
    assert time.process_time() - begun < 0.5


def test_records_that_do_not_parse_are_not_looked_into(batch):
    raw = batch(b"1", b"2", times_s=(100, 105))
    raw = patched(raw, 61, b"\xff" * (len(raw) - 61))
    assert first_record_since(parse_batch(raw, max_bytes=LIMIT).at(50), 101_000) == (50, 100_000)
