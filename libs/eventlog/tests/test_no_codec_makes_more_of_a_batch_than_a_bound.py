from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cramjam
import pytest
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from tlsy.eventlog.kafka_codecs import DECODERS, MAX_BODY_BYTES, limit_batches

ERRORS = (CorruptRecordException, cramjam.DecompressionError, struct.error, zlib.error)
GZIP, SNAPPY, LZ4, ZSTD = CODECS = (1, 2, 3, 4)
XERIAL = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a peak so")


def gzip(body):
    return gzip_encode(body, 1)


def raw_snappy(body):
    return bytes(snappy_encode(body, xerial_compatible=False))


ENCODERS = [
    (GZIP, gzip),
    (SNAPPY, snappy_encode),
    (SNAPPY, raw_snappy),
    (LZ4, lz4_encode),
    (ZSTD, zstd_encode),
]


@pytest.mark.parametrize(("codec", "encode"), ENCODERS)
@pytest.mark.parametrize("size", [0, 1, 100_000, MAX_BODY_BYTES])
@pytest.mark.parametrize("view", [bytes, memoryview])
def test_what_a_client_compressed_is_what_it_was(codec, encode, size, view):
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    assert DECODERS[codec](view(encode(body))) == body


@pytest.mark.parametrize(("codec", "encode"), ENCODERS)
def test_a_byte_more_is_refused(codec, encode):
    with pytest.raises(ERRORS):
        DECODERS[codec](encode(bytes(MAX_BODY_BYTES + 1)))


@pytest.mark.parametrize(("codec", "encode"), ENCODERS)
def test_what_is_cut_anywhere_is_refused(codec, encode):
    body = encode(b"".join(b"%d" % number for number in range(10_000)))
    # The first 16 bytes may be a header, behind which nothing is missing.
    for end in {*range(1, 16), *range(17, len(body), 997), *range(len(body) - 40, len(body))}:
        with pytest.raises(ERRORS):
            DECODERS[codec](body[:end])


@pytest.mark.parametrize("size", [-1, 0x7FFF_FFFF, 0])
def test_a_block_whose_length_is_wrong_is_refused(size):
    with pytest.raises(ERRORS):
        DECODERS[SNAPPY](XERIAL + struct.pack(">i", size) + raw_snappy(b"x"))


def test_blocks_that_hold_nothing_are_not_read_for_long():
    with pytest.raises(CorruptRecordException, match="blocks"):
        DECODERS[SNAPPY](XERIAL + (struct.pack(">i", 1) + raw_snappy(b"")) * 200_000)


def repeated(encode):
    """Frames may follow one another; so do blocks, behind one header."""
    frame = encode(bytes(MAX_BODY_BYTES))
    header = XERIAL if frame.startswith(XERIAL) else b""
    return header + frame.removeprefix(header) * 8


PROGRAM = """
import contextlib, re, sys
from tlsy.eventlog.kafka_codecs import DECODERS

def peak_kib():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

body = sys.stdin.buffer.read()
before = peak_kib()
with contextlib.suppress(Exception):
    DECODERS[int(sys.argv[1])](body)
print(peak_kib() - before)
"""


@linux
@pytest.mark.parametrize(("codec", "encode"), ENCODERS)
@pytest.mark.parametrize("bomb", [lambda encode: encode(bytes(8 * MAX_BODY_BYTES)), repeated])
def test_what_would_be_more_is_never_in_memory(codec, encode, bomb):
    body = bomb(encode)
    command = [sys.executable, "-c", PROGRAM, str(codec)]
    ran = subprocess.run(command, input=body, capture_output=True, check=True)
    assert int(ran.stdout) * 1024 < len(body) + 4 * MAX_BODY_BYTES


@pytest.mark.parametrize("codec", CODECS)
def test_aiokafka_reads_within_it_too(codec):
    limit_batches()
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 2 * MAX_BODY_BYTES)
    builder.append(0, 0, None, b"small", [])
    (record,) = DefaultRecordBatch(bytes(builder.build()))
    assert record.value == b"small"
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 2 * MAX_BODY_BYTES)
    builder.append(0, 0, None, bytes(MAX_BODY_BYTES), [])
    with pytest.raises(ERRORS):
        list(DefaultRecordBatch(bytes(builder.build())))
