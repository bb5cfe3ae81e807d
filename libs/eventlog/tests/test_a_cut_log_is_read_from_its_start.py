from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from libs.eventlog.tests.swapped import SwappedLog, received, watermark
from libs.eventlog.tests.test_a_consumer_applies_each_event_once import LongAgo
from libs.eventlog.tests.world import GROUP, TOPIC, event_of, note_down, until
from tlsy.contracts.events import EVENTS_ACCEPTED, INGEST_TOPIC, TOPICS
from tlsy.eventlog.cloudevents import LOG_HEADER
from tlsy.eventlog.delivery import Each, decode_event
from tlsy.eventlog.group_books import GroupBooks
from tlsy.eventlog.kafka_readers import KafkaGroupReader
from tlsy.eventlog.partition import PartitionSettings
from tlsy.eventlog.ports import TopicPartition
from tlsy.runtime.ids import Uuid7

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.fixture
async def log(world):
    await world.outboxes().open_topic_log(TOPIC, "cluster")
    return SwappedLog()


async def test_a_log_cut_while_the_consumer_was_away(world, tenant, log):
    a, b, c, d, e, f, g = (event_of(tenant, note) for note in "abcdefg")
    log.records = received(1, a, b, c)
    consumer = await world.consuming(reader=log.reader)
    await world.noted(tenant, "a", "b", "c")
    await watermark(world, 3)
    await consumer.stop(2.0)
    await world.outboxes().next_topic_log(TOPIC, 1, "cluster")
    log.records = received(1, a) + received(2, d, e, f, g, first=1)
    await world.consuming(reader=log.reader)
    await world.noted(tenant, "a", "b", "c", "d", "e", "f", "g")


async def test_a_log_cut_under_a_running_consumer(world, tenant, log):
    a, b, gone, c, d, e = (event_of(tenant, note) for note in ("a", "b", "gone", "c", "d", "e"))
    log.records = received(1, a, b, gone)
    await world.consuming(reader=log.reader, partition=PartitionSettings(fetch_records=1, tell_s=600))
    await world.noted(tenant, "a", "b", "gone")
    await world.outboxes().next_topic_log(TOPIC, 1, "cluster")
    log.records = received(1, a, b) + received(2, c, d, first=2)
    await world.noted(tenant, "a", "b", "gone", "c", "d")
    log.records += received(2, e, first=4)
    await world.noted(tenant, "a", "b", "gone", "c", "d", "e")
    assert (log.joined, log.rewound, log.committed_before) == (1, 1, 3)


async def test_a_log_that_goes_on_in_the_middle_of_a_fetch_is_read_from_its_start(world, tenant, log):
    """A relay that did not know yet wrote between those of one that did."""
    a, b, gone, c, d, late, e = (event_of(tenant, note) for note in ("a", "b", "gone", "c", "d", "late", "e"))
    log.records = received(1, a, b, gone)
    await world.consuming(reader=log.reader)
    await world.noted(tenant, "a", "b", "gone")
    await world.outboxes().next_topic_log(TOPIC, 1, "cluster")
    log.records = (
        received(1, a) + received(2, c, d, first=1) + received(1, late, first=3) + received(2, e, first=4)
    )
    await until(lambda: _all_noted(world, tenant, 7))
    assert await world.entries(tenant) == ["a", "b", "gone", "late", "c", "d", "e"]


async def _all_noted(world, tenant, count):
    return len(await world.entries(tenant)) == count


async def test_a_log_that_is_read_from_its_start_is_so_once_however_many_members_it_takes(world, tenant, log):
    a, b, gone, c, d, e = (event_of(tenant, note) for note in ("a", "b", "gone", "c", "d", "e"))
    log.records = received(1, a, b, gone)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(delivery, tx):
        if delivery.event.id == d.id:
            begun.set()
            await go_on.wait()
        await note_down(delivery, tx)

    early = await world.consuming(
        {EVENTS_ACCEPTED: Each(slow)}, reader=log.reader, partition=PartitionSettings(fetch_records=1)
    )
    await world.noted(tenant, "a", "b", "gone")
    await world.outboxes().next_topic_log(TOPIC, 1, "cluster")
    log.records = received(1, c, d) + received(2, e, first=3)
    await asyncio.wait_for(begun.wait(), 60)
    await early.stop(0)
    await world.consuming(reader=log.reader)
    await world.noted(tenant, "a", "b", "gone", "c", "d", "e")
    assert log.rewound == 1


async def test_of_two_incarnations_in_short_order_only_the_present_one_is_a_reason_to_begin_again(
    world, tenant, log
):
    """The earlier could not be noted as begun: every member that came to it would go back once more."""
    a, b, c, d, e = (event_of(tenant, note) for note in "abcde")
    log.records = received(1, a, b)
    consumer = await world.consuming(reader=log.reader)
    await world.noted(tenant, "a", "b")
    await watermark(world, 2)
    await consumer.stop(2.0)
    for ended in (1, 2):
        await world.outboxes().next_topic_log(TOPIC, ended, "cluster")
    log.records += received(2, c, first=2)
    consumer = await world.consuming(reader=log.reader)
    await world.noted(tenant, "a", "b", "c")
    log.records += received(2, d, first=3)
    await world.noted(tenant, "a", "b", "c", "d")
    assert log.rewound == 0
    log.records += received(3, e, first=4)
    await world.noted(tenant, "a", "b", "c", "d", "e")
    await until(lambda: _incarnation_is_begun(world, 3))
    await consumer.stop(2.0)
    log.committed = 0
    before = log.joined
    await world.consuming(reader=log.reader)
    await until(lambda: _committed(log, 5))
    assert (log.rewound, log.joined - before) == (1, 2)


async def _incarnation_is_begun(world, number):
    books = GroupBooks("rules_engine", GROUP, world.tenancy("rules_engine"))
    return await books.applied(TopicPartition(topic=TOPIC, partition=0), number) is not None


async def _committed(log, offset):
    return log.committed == offset


async def test_what_is_too_old_when_it_is_read_again_is_no_news(world, tenant, log):
    ancient = replace(event_of(tenant, "ancient"), id=Uuid7(LongAgo(), bytes)())
    log.records = received(1, ancient, event_of(tenant, "a")) + received(2, event_of(tenant, "b"), first=2)
    log.committed = 2
    await world.consuming(reader=log.reader)
    await world.noted(tenant, "a", "b")
    assert log.rewound == 1
    assert world.metrics.dead_letters.labels(GROUP)._value.get() == 0


async def test_a_restart_in_an_incarnation_that_was_begun_reads_on(world, tenant, log):
    log.records = received(1, event_of(tenant, "a"), event_of(tenant, "b"))
    consumer = await world.consuming(reader=log.reader)
    await watermark(world, 2)
    await consumer.stop(2.0)
    await world.consuming(reader=log.reader)
    log.records += received(1, event_of(tenant, "c"), first=2)
    await world.noted(tenant, "a", "b", "c")
    assert log.rewound == 0


async def test_records_that_were_dropped_before_a_known_group_saw_them_are_asked_for(world, tenant, log):
    books = GroupBooks("rules_engine", GROUP, world.tenancy("rules_engine"))
    await books.raise_watermarks(TopicPartition(topic=TOPIC, partition=0), {1: 2})
    log.records, log.oldest = received(1, event_of(tenant, "late"), first=5), 5
    await world.consuming(reader=log.reader)
    await until(lambda: _incarnation(world, 2))


async def test_records_that_were_dropped_before_a_letter_that_was_put_back_are_asked_for(world, tenant, log):
    books = GroupBooks("rules_engine", GROUP, world.tenancy("rules_engine"))
    await books.raise_watermarks(TopicPartition(topic=TOPIC, partition=0), {1: 2})
    letter, after = received(1, event_of(tenant, "letter"), event_of(tenant, "after"), first=5)
    headers = tuple((name, value) for name, value in letter.headers if name != LOG_HEADER)
    log.records, log.oldest = [replace(letter, headers=headers), after], 5
    await world.consuming(reader=log.reader)
    await until(lambda: _incarnation(world, 2))


async def test_records_that_were_dropped_are_asked_for_once_however_often_a_group_begins(world, tenant, log):
    """Each incarnation is published, and read by everybody, again."""
    books = GroupBooks("rules_engine", GROUP, world.tenancy("rules_engine"))
    await books.raise_watermarks(TopicPartition(topic=TOPIC, partition=0), {1: 2})
    (letter,) = received(1, event_of(tenant, "letter"), first=5)
    headers = tuple((name, value) for name, value in letter.headers if name != LOG_HEADER)
    log.records, log.oldest = [replace(letter, headers=headers)], 5
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def late(delivery, tx):
        begun.set()
        await go_on.wait()
        await note_down(delivery, tx)

    early = await world.consuming({EVENTS_ACCEPTED: Each(late)}, reader=log.reader)
    await asyncio.wait_for(begun.wait(), 60)
    await early.stop(0)
    await world.consuming(reader=log.reader)
    await world.noted(tenant, "letter")
    assert await _incarnation(world, 2)


async def test_records_that_were_dropped_before_a_group_told_anything_are_asked_for(world, tenant, log):
    log.records = received(1, event_of(tenant, "gone"))
    await _begun_and_nothing_told(world, log)
    log.records, log.oldest = received(1, event_of(tenant, "late"), first=5), 5
    await world.consuming(reader=log.reader)
    await until(lambda: _incarnation(world, 2))


async def _begun_and_nothing_told(world, log):
    begun = asyncio.Event()

    async def hang(delivery, tx):
        begun.set()
        await asyncio.Event().wait()

    consumer = await world.consuming({EVENTS_ACCEPTED: Each(hang)}, reader=log.reader)
    await asyncio.wait_for(begun.wait(), 60)
    await consumer.stop(0)
    assert log.committed is None


async def test_what_a_broker_had_dropped_before_a_group_began_is_not_missing(world, tenant, log, log_lines):
    log.records, log.oldest = received(1, event_of(tenant, "a"), first=5), 5
    await _begun_and_nothing_told(world, log)
    await world.consuming(reader=log.reader)
    await world.noted(tenant, "a")
    assert "records are missing" not in log_lines.text
    assert await _incarnation(world, 1)


async def test_what_was_dropped_before_a_group_began_is_not_missing_in_an_incarnation_that_ended(
    world, tenant, log, log_lines
):
    log.records, log.oldest = received(1, event_of(tenant, "a"), first=5), 5
    await world.outboxes().next_topic_log(TOPIC, 1, "cluster")
    await world.consuming(reader=log.reader)
    await world.noted(tenant, "a")
    assert "records are missing" not in log_lines.text


async def test_a_group_whose_books_are_lost_reads_a_log_that_does_not_begin_at_0_from_its_start(
    world, tenant, log
):
    a, b, c = (event_of(tenant, note) for note in "abc")
    log.records, log.oldest, log.committed = received(1, a, b, c, first=5), 5, 7
    await world.consuming(reader=log.reader)
    await until(lambda: _all_noted(world, tenant, 3))
    assert log.rewound == 1


async def test_what_a_transaction_leaves_in_a_log_is_no_record_that_is_missing(world, tenant, log, log_lines):
    log.records = received(1, event_of(tenant, "a"))
    await world.consuming(reader=log.reader)
    await world.noted(tenant, "a")
    log.records += received(1, event_of(tenant, "b"), first=2)
    await world.noted(tenant, "a", "b")
    assert "records are missing" not in log_lines.text
    assert await _incarnation(world, 1)


async def _incarnation(world, wanted):
    return (await world.outboxes().topic_log(TOPIC))[0] == wanted


async def test_a_producers_log_header_is_no_incarnation(world, tenant):
    assert INGEST_TOPIC not in TOPICS.values()

    async def decode(record):
        return decode_event(record.__class__(**{f: getattr(record, f) for f in record.__slots__} | relayed))

    relayed = {"topic": TOPIC}
    log = SwappedLog(INGEST_TOPIC)
    for number in range(6):
        event = event_of(tenant, str(number))
        log.records += received(5 + number, event, first=number, topic=INGEST_TOPIC)
        if not number:
            await world.consuming(reader=log.reader, decode=decode)
        await world.noted(tenant, *map(str, range(number + 1)))
    assert (log.joined, log.rewound) == (1, 0)


async def test_a_broker_reads_from_the_start_again(world, tenant):
    await world.send(event_of(tenant, "a"), event_of(tenant, "b"))
    dealt: asyncio.Queue[Sequence[TopicPartition]] = asyncio.Queue()
    reader = KafkaGroupReader(world.brokers, GROUP, [TOPIC], "test")
    await reader.start(dealt.put, dealt.put)
    try:
        (place,) = {record.partition for record in await world.records()}
        while place not in (given := {each.partition: each for each in await dealt.get()}):
            pass
        partition = given[place]
        first = await reader.fetch(partition, max_records=9, timeout_s=10)
        await reader.rewind(partition)
        assert await reader.fetch(partition, max_records=9, timeout_s=10) == first
        assert first
    finally:
        await reader.stop()
