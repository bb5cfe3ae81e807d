from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlsy.agent.adapters.buffer import SEGMENT_BYTES, BufferInUseError, DiskBuffer
from tlsy.agent.ports import BufferFullError


@pytest.fixture
def opened(tmp_path):
    """Opens the buffer of the test's folder; all are closed in the end."""
    with ExitStack() as stack:
        yield lambda max_bytes=10**9: stack.enter_context(closing(DiskBuffer(tmp_path, max_bytes)))


def drained(buffer: DiskBuffer) -> list[bytes]:
    return buffer.peek(10**6, 10**9)[0]


def test_records_come_back_in_order_until_they_are_acknowledged(opened, tmp_path):
    buffer = opened()
    buffer.append([b"a", b"b", b"c"])
    records, place = buffer.peek(2, 10**9)
    assert records == [b"a", b"b"]
    assert drained(buffer) == [b"a", b"b", b"c"]
    buffer.acknowledge(place)
    assert drained(buffer) == [b"c"]


def test_what_it_keeps_nobody_else_reads(tmp_path):
    folder = tmp_path / "buffer"
    with closing(DiskBuffer(folder, 10**9)) as buffer:
        buffer.append([b"a"])
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        raw = {
            path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.stat().st_size
        }
    assert raw
    assert set(raw.values()) == {0o600}


def test_the_place_and_the_records_outlive_the_process(opened, tmp_path):
    first = opened()
    first.append([b"a", b"b"])
    first.acknowledge(first.peek(1, 10**9)[1])
    first.close()
    assert drained(opened()) == [b"b"]


def test_a_torn_record_is_cut_off_and_the_next_one_follows_the_whole_ones(opened, tmp_path):
    buffer = opened()
    buffer.append([b"whole", b"torn"])
    buffer.close()
    (segment,) = tmp_path.glob("*.events")
    os.truncate(segment, segment.stat().st_size - 1)
    reopened = opened()
    reopened.append([b"next"])
    assert drained(reopened) == [b"whole", b"next"]


def test_a_damaged_record_is_not_returned(opened, tmp_path):
    buffer = opened()
    buffer.append([b"good", b"flipped"])
    buffer.close()
    (segment,) = tmp_path.glob("*.events")
    blob = bytearray(segment.read_bytes())
    blob[-1] ^= 1
    segment.write_bytes(blob)
    assert drained(opened()) == [b"good"]


def flip(path, offset):
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


#: Of a record's head and of its bytes.
@pytest.mark.parametrize("offset", [0, 2, 5, 8])
@pytest.mark.parametrize("reopen", [True, False])
def test_one_damaged_byte_costs_one_record(opened, tmp_path, offset, reopen):
    buffer = opened()
    buffer.append([b"record-%d" % n for n in range(100)])
    (segment,) = tmp_path.glob("*.events")
    flip(segment, offset)
    if reopen:
        buffer.close()
        buffer = opened()
    buffer.append([b"next"])
    assert drained(buffer) == [*(b"record-%d" % n for n in range(1, 100)), b"next"]
    buffer.acknowledge(buffer.peek(10**6, 10**9)[1])
    assert buffer.size_bytes() == 0


def test_damage_in_what_is_delivered_costs_nothing(opened, tmp_path):
    buffer = opened()
    buffer.append([b"old-%d" % n for n in range(10)])
    buffer.acknowledge(buffer.peek(5, 10**9)[1])
    buffer.close()
    (segment,) = tmp_path.glob("*.events")
    flip(segment, 8)
    buffer = opened()
    buffer.append([b"new"])
    assert drained(buffer) == [*(b"old-%d" % n for n in range(5, 10)), b"new"]


def test_damage_in_an_earlier_segment_costs_one_record(opened, tmp_path):
    buffer = opened()
    for number in range(4):
        buffer.append([bytes([number]) * 1_500_000] * 2)
    flip(min(tmp_path.glob("*.events")), 100)
    assert [record[0] for record in drained(buffer)] == [0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("content", [b"", b"x" * 16, b"x" * 8192, b"x" * 10_000])
def test_a_place_that_is_lost_sends_again_and_loses_nothing(opened, tmp_path, content):
    buffer = opened()
    buffer.append([b"a", b"b"])
    buffer.acknowledge(buffer.peek(1, 10**9)[1])
    buffer.close()
    (tmp_path / "place").write_bytes(content)
    buffer = opened()
    assert drained(buffer) == [b"a", b"b"]
    buffer.acknowledge(buffer.peek(1, 10**9)[1])
    buffer.close()
    assert drained(opened()) == [b"b"]


def test_a_place_whose_writing_was_torn_is_the_one_before(opened, tmp_path):
    buffer = opened()
    buffer.append([b"a", b"b", b"c"])
    for _ in range(2):
        buffer.acknowledge(buffer.peek(1, 10**9)[1])
    buffer.close()
    flip(tmp_path / "place", 8)
    assert drained(opened()) == [b"b", b"c"]


def test_a_place_behind_the_end_loses_no_record_that_follows(opened, tmp_path):
    buffer = opened()
    buffer.append([b"a" * 100])
    buffer.acknowledge(buffer.peek(1, 10**9)[1])
    buffer.close()
    (segment,) = tmp_path.glob("*.events")
    os.truncate(segment, 10)
    buffer = opened()
    buffer.append([b"new"])
    buffer.close()
    assert drained(opened()) == [b"new"]


def test_zeros_that_were_never_written_over_are_no_records(opened, tmp_path):
    buffer = opened()
    buffer.append([b"a"])
    buffer.close()
    (segment,) = tmp_path.glob("*.events")
    os.truncate(segment, segment.stat().st_size + 4096)
    buffer = opened()
    buffer.append([b"b"])
    assert drained(buffer) == [b"a", b"b"]


@contextmanager
def full_disk(free_bytes):
    """No file of this process may be longer than that: stands for a disk that takes no more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_on_a_full_disk_the_buffer_is_emptied_and_then_takes_more(opened, tmp_path):
    buffer = opened()
    buffer.append([b"a" * 15_000] * 2)
    with full_disk(32_000):
        with pytest.raises(OSError, match="File too large"):
            buffer.append([b"b" * 15_000])
        assert len(drained(buffer)) == 2
        files = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
        for _ in range(2):
            buffer.acknowledge(buffer.peek(1, 10**9)[1])
        # Nothing is made anew for that, which would need room.
        assert {path.name: path.stat().st_ino for path in tmp_path.iterdir()} == files
        buffer.append([b"c" * 15_000])
        assert drained(buffer) == [b"c" * 15_000]
    buffer.close()
    assert drained(opened()) == [b"c" * 15_000]


@pytest.mark.parametrize("reopen", [True, False])
def test_on_a_full_disk_that_frees_nothing_what_is_written_later_is_not_passed_over(opened, tmp_path, reopen):
    buffer = opened()
    for size in (SEGMENT_BYTES, 20_000):
        buffer.append([b"a" * size])
        buffer.acknowledge(buffer.peek(1, 10**9)[1])
    # Stands for a file that a full disk cannot remove, as those do that copy what they change.
    undeletable = tmp_path / "000000000000.events"
    undeletable.mkdir()
    with full_disk(32_000), pytest.raises(OSError, match="Is a directory"):
        buffer.append([b"b" * 15_000])
    undeletable.rmdir()
    buffer.append([b"later"])
    if reopen:
        buffer.close()
        buffer = opened()
    assert drained(buffer) == [b"later"]


def test_a_full_buffer_takes_nothing_and_keeps_what_it_has(opened, tmp_path):
    buffer = opened(20)
    buffer.append([b"12345678"])
    with pytest.raises(BufferFullError):
        buffer.append([b"x"] * 2)
    assert drained(buffer) == [b"12345678"]


def test_acknowledged_segments_are_deleted(opened, tmp_path):
    buffer = opened()
    for _ in range(5):
        buffer.append([bytes(3_000_000)])
    buffer.acknowledge(buffer.peek(4, 10**9)[1])
    assert len(list(tmp_path.glob("*.events"))) == 1
    assert buffer.size_bytes() < 7_000_000


def test_a_copy_that_somebody_left_in_the_folder_is_none_of_the_queue(opened, tmp_path):
    buffer = opened()
    buffer.append([b"a"])
    buffer.close()
    (segment,) = tmp_path.glob("*.events")
    (tmp_path / f"{segment.stem} copy.events").write_bytes(segment.read_bytes())
    (tmp_path / "1.events").write_bytes(segment.read_bytes())
    assert drained(opened()) == [b"a"]


def test_a_second_agent_on_the_same_folder_is_refused(opened, tmp_path):
    buffer = opened()
    with pytest.raises(BufferInUseError):
        opened()
    buffer.close()
    opened()


def test_collecting_goes_on_while_what_was_delivered_is_forgotten(opened):
    """Segments disappear and appear under a writer that sums up their sizes."""
    buffer, block = opened(), bytes(1_500_000)
    with ThreadPoolExecutor(1) as collecting:
        written = collecting.submit(lambda: [buffer.append([block]) for _ in range(120)])
        taken = 0
        while taken < 120 and not (written.done() and written.exception()):
            records, place = buffer.peek(3, 10**9)
            buffer.acknowledge(place)
            taken += len(records)
        written.result()
    assert drained(buffer) == []


WRITER = """
import sys, pathlib
from tlsy.agent.adapters.buffer import DiskBuffer
buffer = DiskBuffer(pathlib.Path(sys.argv[1]), 10**9)
for number in range(10**6):
    buffer.append([b"%d" % (10 * number + i) for i in range(10)])
    print(10 * number + 9, flush=True)
"""


def test_what_was_counted_as_written_survives_sigkill(opened, tmp_path):
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        counted = [int(writer.stdout.readline()) for _ in range(50)][-1]
        writer.send_signal(signal.SIGKILL)
    numbers = [int(record) for record in drained(opened())]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > counted


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.lists(st.binary(min_size=1, max_size=2_000_000 // 50), min_size=1, max_size=5),
            st.integers(1, 7),
            st.just("reopen"),
        ),
        max_size=25,
    )
)
def test_it_is_a_queue_whatever_the_order_of_calls(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("queue")
    buffer = DiskBuffer(folder, 10**9)
    model: list[bytes] = []
    for step in steps:
        if step == "reopen":
            buffer.close()
            buffer = DiskBuffer(folder, 10**9)
        elif isinstance(step, int):
            records, place = buffer.peek(step, 10**9)
            assert records == model[:step]
            buffer.acknowledge(place)
            del model[: len(records)]
        else:
            buffer.append(step)
            model += step
    assert drained(buffer) == model
    buffer.close()
