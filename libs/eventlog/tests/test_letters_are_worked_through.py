from __future__ import annotations

import asyncio

import pytest

from libs.eventlog.tests.test_a_consumer_applies_each_event_once import dead_letters, refuse_bad
from libs.eventlog.tests.test_a_foreign_record_stops_nobody import write
from libs.eventlog.tests.test_a_record_that_nobody_can_read_stops_nobody import (
    CODECS,
    batch_of,
    of_no_codec,
    put,
)
from libs.eventlog.tests.world import CLOCK, GROUP, TOPIC, event_of, note_down, note_of
from tlsy.contracts.events import EVENTS_ACCEPTED
from tlsy.eventlog.cloudevents import LOG_HEADER, from_record, to_headers
from tlsy.eventlog.delivery import Each
from tlsy.eventlog.errors import LogUnavailable
from tlsy.eventlog.letter_box import LetterBox, LetterCut, ReplayStopped, letters_topic


@pytest.fixture
async def refused(world, tenant):
    """Three letters of a consumer that could not apply them, and is gone."""
    await world.send(*(event_of(tenant, note) for note in ("bad 1", "good", "bad 2", "bad 3")))
    consumer = await world.consuming({EVENTS_ACCEPTED: Each(refuse_bad)})
    await world.noted(tenant, "good")
    await dead_letters(world, 3)
    await consumer.stop(2.0)
    return world


def box(world):
    return LetterBox.opened(world.brokers, TOPIC, GROUP)


async def test_a_letter_tells_why(refused):
    async with box(refused) as letters:
        first, second = await letters.pending(2)
    assert [note_of(letter.value) for letter in (first, second)] == ["bad 1", "bad 2"]
    assert (first.why["reason"], first.why["topic"]) == ("BAD_NOTE", TOPIC)
    assert "ce_id" in dict(first.headers)


async def test_replayed_records_are_applied_once(refused, tenant):
    async with box(refused) as letters:
        assert await letters.replay(1, refused.producer(), CLOCK.now()) == 2
        assert [letter.offset for letter in await letters.pending(9)] == [2]
    await refused.consuming({EVENTS_ACCEPTED: Each(note_down)})
    await refused.noted(tenant, "good", "bad 1", "bad 2")


class Kept:
    """A producer that keeps what it publishes."""

    def __init__(self, producer):
        self.producer = producer
        self.records = []

    async def publish(self, records, *, timeout_s):
        self.records += records
        return await self.producer.publish(records, timeout_s=timeout_s)


async def test_a_record_is_put_back_as_its_writer_made_it_and_is_of_no_log(refused, tenant):
    producer = Kept(refused.producer())
    async with box(refused) as letters:
        (letter,) = await letters.pending(1)
        await letters.replay(0, producer, CLOCK.now())
    (record,) = producer.records
    assert LOG_HEADER in dict(letter.headers)
    wanted = to_headers(from_record(record.headers, record.key, record.value), log=1)
    assert set(record.headers) == {header for header in wanted if header[0] != LOG_HEADER}
    assert dict(record.headers)["tenantid"] == str(tenant.tenant_id).encode()


class Ending:
    """A producer whose broker goes away after one record."""

    def __init__(self, producer):
        self.producer = producer

    async def publish(self, records, *, timeout_s):
        if self.producer is None:
            return [None]
        producer, self.producer = self.producer, None
        return await producer.publish(records, timeout_s=timeout_s)


async def test_a_replay_that_ends_on_the_way_tells_how_far_it_got(refused):
    async with box(refused) as letters:
        with pytest.raises(ReplayStopped) as stopped:
            await letters.replay(2, Ending(refused.producer()), CLOCK.now())
        assert (stopped.value.done, stopped.value.left, stopped.value.at) == (1, 2, 1)
        assert isinstance(stopped.value.why, LogUnavailable)
        assert [letter.offset for letter in await letters.pending(9)] == [1, 2]


async def test_discarded_letters_are_done_with(refused):
    async with box(refused) as letters:
        assert await letters.discard(0) == 1
        assert await letters.discard(0) == 0
    async with box(refused) as letters:
        items, oldest = await letters.backlog()
        assert await letters.discard(99) == 2
        assert await letters.backlog() == (0, None)
    assert (items, oldest is not None) == (2, True)


async def test_a_cut_letter_is_not_put_back(world, tenant):
    await write(world, tenant, value=b"0" * 5_000_000, compression="gzip")
    await world.consuming()
    await dead_letters(world, 1)
    async with box(world) as letters:
        with pytest.raises(LetterCut):
            await letters.replay(0, world.producer(), CLOCK.now())
        assert len(await letters.pending(9)) == 1


@pytest.mark.parametrize("codec", CODECS)
async def test_a_letter_that_nobody_can_read_is_told_as_that_and_can_be_discarded(refused, tenant, codec):
    broken = of_no_codec(batch_of(event_of(tenant, "a"), compression=codec))
    await put(refused, tenant, broken, topic=letters_topic(TOPIC, GROUP), partitions=1)
    async with box(refused) as letters:
        assert await letters.discard(2) == 3
        with pytest.raises(LogUnavailable, match="a letter cannot be read"):
            await letters.pending(9)
        assert await letters.discard(3) == 1
        assert await letters.backlog() == (0, None)


async def test_a_group_that_refused_nothing_has_no_letters(world):
    with pytest.raises(LogUnavailable):
        async with LetterBox.opened(world.brokers, TOPIC, "nobody"):
            pass


async def test_a_broker_that_is_slow_is_not_called_none(refused):
    with pytest.raises(LogUnavailable, match="took too long to answer"):
        async with box(refused) as letters, asyncio.timeout(0):
            await letters.pending(1)
