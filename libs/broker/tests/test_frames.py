from __future__ import annotations

import struct

import pytest

from tlsy.broker.api import MalformedRequestError
from tlsy.broker.frames import Frames

PRODUCE, METADATA = 0, 3


@pytest.fixture
def frames():
    return Frames(max_produce_bytes=100, max_other_bytes=50)


def head(size, key):
    return struct.pack(">ih", size, key)


@pytest.mark.parametrize(
    ("size", "key"), [(101, PRODUCE), (51, METADATA), (-1, METADATA), (2**31 - 1, PRODUCE)]
)
def test_a_length_out_of_bounds_is_refused_before_the_rest_arrives(frames, size, key):
    frames.feed(head(size, key))
    with pytest.raises(MalformedRequestError):
        frames.take()


@pytest.mark.parametrize(("size", "key"), [(100, PRODUCE), (50, METADATA)])
def test_a_frame_of_exactly_the_limit_is_taken_when_it_is_whole(frames, size, key):
    frames.feed(head(size, key) + bytes(size - 3))
    assert frames.take() is None
    frames.feed(b"\x01")
    assert frames.take() == struct.pack(">h", key) + bytes(size - 3) + b"\x01"
    assert frames.buffered_bytes == 0


def test_frames_are_cut_wherever_the_stream_is_torn(frames):
    stream = head(6, METADATA) + b"one." + head(7, PRODUCE) + b"three"
    taken = []
    for byte in stream:
        frames.feed(bytes([byte]))
        if (frame := frames.take()) is not None:
            taken.append(frame[2:])
    assert taken == [b"one.", b"three"]
