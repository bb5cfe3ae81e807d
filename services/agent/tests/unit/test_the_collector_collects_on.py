from __future__ import annotations

import asyncio

import pytest

from tlsy.agent.domain.readings import Origin, Reading
from tlsy.agent.handlers.collect import Collector
from tlsy.agent.ports import BufferFullError
from tlsy.contracts.ingestion.v1 import ingestion_pb2


class OneReading:
    async def read(self):
        return [Reading(type="host.cpu", subject="all", value=7)]


class Disk:
    """Takes what it is given, or raises what it is told to."""

    def __init__(self):
        self.error = None
        self.events = []

    def append(self, records):
        if self.error is not None:
            raise self.error
        self.events += map(ingestion_pb2.Event.FromString, records)

    def peek(self, *limits):
        raise NotImplementedError

    def acknowledge(self, place):
        raise NotImplementedError


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
def collector(disk, fake_clock):
    ids = map(str, range(1000))
    return Collector(
        interval_s=10,
        origin=Origin(source="agent/a", site="dakar", labels={"team": "shop"}),
        readings=OneReading(),
        buffer=disk,
        clock=fake_clock,
        new_id=lambda: next(ids),
        collected=asyncio.Event(),
    )


async def test_a_reading_becomes_an_event_with_its_id_and_time(collector, disk, fake_clock):
    assert await collector.collect() == 1
    (event,) = disk.events
    assert (event.source, event.id, event.site, event.value) == ("agent/a", "0", "dakar", 7)
    assert event.time_us == int(fake_clock.now().timestamp() * 1_000_000)
    assert event.labels == {"team": "shop"}


@pytest.mark.parametrize("error", [BufferFullError("full"), OSError(28, "No space left on device")])
async def test_a_buffer_that_takes_no_more_is_told_once_each_time_it_fills(collector, disk, log_lines, error):
    for times in (1, 2):
        disk.error = error
        assert [await collector.collect() for _ in range(3)] == [0, 0, 0]
        assert log_lines.text.count("not collecting") == times
        disk.error = None
        assert await collector.collect() == 1


async def test_it_collects_at_once_and_every_interval_until_it_is_stopped(collector, disk, fake_clock):
    stopping = asyncio.Event()
    running = asyncio.create_task(collector.run(stopping))
    for count in (1, 2, 3):
        async with asyncio.timeout(60):
            while fake_clock.sleepers == 0 or len(disk.events) < count:
                await asyncio.sleep(0.001)
        fake_clock.advance(10)
    stopping.set()
    async with asyncio.timeout(60):
        await running
    first, second, *_ = (event.time_us for event in disk.events)
    assert second - first == 10_000_000
