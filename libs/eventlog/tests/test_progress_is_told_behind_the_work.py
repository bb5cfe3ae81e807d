from __future__ import annotations

import asyncio
import contextlib

import pytest

from tlsy.eventlog.errors import LogUnavailable
from tlsy.eventlog.ports import TopicPartition
from tlsy.eventlog.progress import Progress
from tlsy.tenancy.context import Placement
from tlsy.tenancy.errors import PlacementUnavailable

PARTITION = TopicPartition(topic="events", partition=0)


class Told:
    """The books and the broker's reader: what they were told, and what they fail with first."""

    def __init__(self):
        self.marks = []
        self.offsets = []
        self.failures = {}
        self.meanwhile = lambda: None

    async def raise_watermarks(self, partition, next_offsets):
        if "marks" in self.failures:
            raise self.failures.pop("marks")
        told = {}
        for log, next_offset in next_offsets.items():
            self.meanwhile()
            told[log] = next_offset
        self.marks.append(told)

    async def commit(self, offsets):
        if "offsets" in self.failures:
            raise self.failures.pop("offsets")
        self.offsets.append(offsets[PARTITION])


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def progress(told, fake_clock):
    return Progress(PARTITION, books=told, reader=told, clock=fake_clock, every_s=0.25)


async def test_the_newest_is_told_once_in_a_while(progress, told, fake_clock):
    running = asyncio.create_task(progress.run())
    for offset in (1, 2, 3):
        progress.note({1: offset}, offset)
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        while not fake_clock.sleepers:
            await asyncio.sleep(0)
        assert told.offsets == []
        fake_clock.advance(0.25)
        while not told.offsets:
            await asyncio.sleep(0)
    running.cancel()
    assert (told.marks, told.offsets) == ([{1: 3}], [3])


@pytest.mark.parametrize("noted", [{1: 9}, {2: 1}])
async def test_what_is_noted_while_something_is_told_is_told_after_it(progress, told, noted):
    progress.note({1: 5}, 5)
    told.meanwhile = lambda: progress.note(noted, 9)
    await progress.tell()
    told.meanwhile = lambda: None
    await progress.tell()
    assert (told.marks, told.offsets) == ([{1: 5}, noted], [5, 9])


async def test_what_could_not_be_told_needs_no_next_record(progress, told, fake_clock):
    told.failures = {"offsets": LogUnavailable("away")}
    progress.note({1: 5}, 5)
    running = asyncio.create_task(progress.run())
    async with asyncio.timeout(60):
        while not told.offsets:
            if fake_clock.sleepers:
                fake_clock.advance(0.25)
            await asyncio.sleep(0)
    running.cancel()
    assert told.offsets == [5]


@pytest.mark.parametrize(
    "failures",
    [
        {"offsets": LogUnavailable("away")},
        {"marks": PlacementUnavailable(Placement("c", "d", "s"), "away")},
    ],
)
async def test_what_could_not_be_told_is_told_the_next_time(progress, told, failures):
    progress.note({1: 5, 2: 2}, 7)
    told.failures = failures
    await progress.tell()
    await progress.tell()
    assert told.marks[-1] == {1: 5, 2: 2}
    assert told.offsets[-1] == 7
    count = len(told.offsets)
    await progress.tell()
    assert len(told.offsets) == count


class Swallows(Told):
    """A client that ends a commit when that is cancelled, as if nothing had been asked."""

    def __init__(self):
        super().__init__()
        self.committing = asyncio.Event()

    async def commit(self, offsets):
        self.committing.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


@pytest.fixture
def swallows():
    return Swallows()


async def test_it_ends_whatever_becomes_of_a_cancellation(swallows, fake_clock):
    progress = Progress(PARTITION, books=swallows, reader=swallows, clock=fake_clock, every_s=0)
    progress.note({}, 1)
    running = asyncio.create_task(progress.run())
    async with asyncio.timeout(60):
        await swallows.committing.wait()
        progress.end()
        running.cancel()
        await asyncio.wait({running})


async def test_an_incarnation_is_begun_once_the_broker_knows_where(progress, told):
    """Who found it begun, and went on where the member was before, would miss what is below."""
    progress.note({1: 5}, 5)
    told.failures = {"offsets": LogUnavailable("away")}
    with pytest.raises(LogUnavailable):
        await progress.begin_again(2, 1)
    await progress.tell()
    assert (told.marks, told.offsets) == ([{1: 5}], [5])
    told.meanwhile = lambda: told.offsets.append("marks")
    await progress.begin_again(2, 1)
    assert (told.marks, told.offsets) == ([{1: 5}, {2: 0}], [5, 1, "marks", 1])
