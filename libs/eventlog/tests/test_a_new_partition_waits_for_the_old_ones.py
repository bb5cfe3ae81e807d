from __future__ import annotations

import asyncio
from functools import partial

import pytest

from libs.eventlog.tests.swapped import received
from libs.eventlog.tests.world import CLOCK, GROUP, IDS, TOPIC, event_of, until
from tlsy.eventlog.errors import LogUnavailable
from tlsy.eventlog.group_books import GroupBooks
from tlsy.eventlog.growth import Growth
from tlsy.eventlog.kafka import partition_of
from tlsy.eventlog.kafka_readers import KafkaGroupReader
from tlsy.eventlog.parking import Parking
from tlsy.eventlog.ports import TopicPartition

OLD, NEW = (TopicPartition(topic=TOPIC, partition=number) for number in (0, 2))


class Ends:
    """What a member is told of a log of three partitions, of which two are old."""

    def __init__(self, end):
        self.end, self.reached, self.begins = end, None, 0
        self.asked = 0

    async def ends(self, topic):
        self.asked += 1
        return {0: self.end, 1: 0, 2: 9}

    async def starts(self, topic):
        return {0: self.begins, 1: 0, 2: 0}

    async def committed(self, partition):
        return self.reached if partition.partition == 0 else None

    async def oldest(self, partition):
        if partition.partition > NEW.partition:
            raise LogUnavailable("there is no such partition")
        return self.begins if partition.partition == 0 else 0


@pytest.fixture
def books(world):
    return GroupBooks("rules_engine", GROUP, world.installation.tenancy("rules_engine"))


@pytest.fixture
def parking(world):
    return Parking("rules_engine", GROUP, world.installation.tenancy("rules_engine"))


@pytest.fixture
def growth(log_lines, books, parking):
    return Growth(GROUP, books=books, parking=parking, clock=CLOCK, known_s=0.01)


@pytest.mark.parametrize(("few", "more"), [(2, 4), (12, 24), (12, 36)])
def test_a_multiple_moves_nobody_to_a_partition_that_was_there(few, more):
    for key in (IDS().hex.encode() for _ in range(1_000)):
        assert partition_of(key, more) in {partition_of(key, few), *range(few, more)}


async def test_what_is_parked_comes_first(books, parking, growth, tenant):
    await books.begin_with(TOPIC, {0: 0, 1: 0})
    (record,) = received(1, event_of(tenant, "a"))
    await parking.park(tenant.tenant_id, OLD, [record], epoch=await books.take(OLD))
    log = Ends(0)
    task = asyncio.create_task(growth.wait_for_turn(NEW, log))
    await until(partial(looked, log, task))
    assert not task.done()
    await parking.release(tenant.tenant_id, [(await parking.first(tenant.tenant_id, OLD, 1))[0][0]])
    await asyncio.wait_for(task, 60)


async def at_once(growth, partition, log):
    await asyncio.wait_for(growth.wait_for_turn(partition, log), 20)


async def test_the_partitions_that_a_group_begins_with_wait_for_nobody(books, growth, log_lines):
    log = Ends(9)
    for number in range(3):
        await at_once(growth, TopicPartition(topic=TOPIC, partition=number), log)
    assert await books.partitions(TOPIC) == [0, 1, 2]
    assert "partition is new" not in log_lines.text


async def test_one_that_was_taken_is_not_new_any_more(books, growth, log_lines):
    await books.begin_with(TOPIC, {0: 0, 1: 0})
    await books.take(NEW)
    await at_once(growth, NEW, Ends(9))
    assert "partition is new" not in log_lines.text


async def test_those_that_a_topic_had_before_it_was_made_anew_are_not_waited_for(books, growth):
    await books.begin_with(TOPIC, {0: 0, 1: 0})
    await books.take(TopicPartition(topic=TOPIC, partition=9))
    log = Ends(9)
    log.reached = 9
    await at_once(growth, NEW, log)


async def test_ends_are_those_of_all_partitions_or_none_are_told(world):
    """Metadata lack a topic while e.g. it is made: a new partition would find that it waits for nothing."""
    await world.inspector().ensure_topics({TOPIC: 2})
    dealt: asyncio.Queue[object] = asyncio.Queue()
    reader = KafkaGroupReader(world.brokers, GROUP, [TOPIC], "test")
    await reader.start(dealt.put, dealt.put)
    try:
        for ask in (reader.ends, reader.starts):
            assert await ask(TOPIC) == {0: 0, 1: 0}
            with pytest.raises(LogUnavailable):
                await ask("tlsy.identity")
    finally:
        await reader.stop()


@pytest.fixture
async def waiting(books, growth):
    """A new partition that has looked at the old ones, and waits."""
    await books.begin_with(TOPIC, {0: 0, 1: 0})
    log = Ends(9)
    task = asyncio.create_task(growth.wait_for_turn(NEW, log))
    await until(partial(looked, log, task))
    assert not task.done()
    yield log, task
    task.cancel()


async def looked(log, task):
    return task.done() or log.asked > 3


@pytest.fixture
def patient(books, parking, fake_clock):
    return Growth(GROUP, books=books, parking=parking, clock=fake_clock, known_s=10.0)


async def test_it_waits_for_what_is_written_by_those_who_do_not_know_of_it_yet(books, patient, fake_clock):
    await books.begin_with(TOPIC, {0: 0, 1: 0})
    log = Ends(9)
    log.reached = 9
    task = asyncio.create_task(patient.wait_for_turn(NEW, log))
    await until(partial(sleeps, fake_clock, task))
    log.end = 20
    fake_clock.advance(10.0)
    await until(partial(sleeps, fake_clock, task))
    assert not task.done()
    log.reached = 20
    fake_clock.advance(1.0)
    await asyncio.wait_for(task, 60)


async def sleeps(clock, task):
    return task.done() or clock.sleepers


async def test_that_it_waits_is_told_with_its_group(waiting, log_lines):
    (told,) = log_lines.of("partition is new and waits")
    assert (told["group"], told["topic"], told["partition"]) == (GROUP, TOPIC, NEW.partition)


async def test_nobody_waits_for_what_is_written_later(waiting):
    log, task = waiting
    log.end, log.reached = 20, 9
    await asyncio.wait_for(task, 60)


async def test_nobody_waits_for_what_a_log_lost(waiting):
    log, task = waiting
    log.end, log.reached = 4, 4
    await asyncio.wait_for(task, 60)


async def test_nobody_waits_for_what_a_broker_dropped(waiting):
    log, task = waiting
    log.begins = 9
    await asyncio.wait_for(task, 60)


async def test_where_others_write_nobody_waits(books, growth, log_lines):
    await books.begin_with("tlsy.ingest", {0: 0, 1: 0})
    await at_once(growth, TopicPartition(topic="tlsy.ingest", partition=2), Ends(9))
    assert "partition is new" not in log_lines.text
