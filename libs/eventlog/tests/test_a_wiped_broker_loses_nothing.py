from __future__ import annotations

from datetime import timedelta

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from libs.eventlog.tests.swapped import SwappedLog, received, watermark
from libs.eventlog.tests.world import CLOCK, GROUP, TOPIC, BrokerControl, World, event_of, note_of, until
from tlsy.eventlog.errors import LogChanged, LogUnavailable
from tlsy.eventlog.group_books import GroupBooks
from tlsy.eventlog.outboxes import Applied
from tlsy.eventlog.ports import Position, TopicPartition
from tlsy.eventlog.topic_log import TopicLog
from tlsy.tenancy.context import Placement
from tlsy.tenancy.errors import PlacementUnavailable


async def notes(world):
    return [note_of(record.value) for record in await world.records()]


async def wipe(broker):
    await broker.stop()
    await broker.start()


async def test_what_no_group_had_applied_is_published_again(world, tenant, broker):
    relay = await world.relaying()
    await world.publish(tenant, "a", "b")
    await world.published(tenant)
    await relay.stop(1.0)
    await wipe(broker)
    await world.consuming()
    await world.relaying()
    await world.noted(tenant, "a", "b")


async def test_a_running_suite_survives_and_counts_nothing_twice(world, tenant, broker):
    await world.relaying()
    await world.consuming()
    await world.publish(tenant, "a", "b")
    await world.noted(tenant, "a", "b")
    await broker.stop()
    await world.publish(tenant, "c")
    await broker.start()
    await world.publish(tenant, "d")
    await world.noted(tenant, "a", "b", "c", "d")


async def test_a_reader_that_is_ahead_in_another_log_begins_it_anew(world, tenant):
    log = SwappedLog()
    log.records = received(1, event_of(tenant, "a"), event_of(tenant, "b"))
    await world.consuming(reader=log.reader)
    await world.noted(tenant, "a", "b")
    log.records = received(2, *(event_of(tenant, note) for note in "cdef"))
    await world.noted(tenant, "a", "b", "c", "d", "e", "f")
    assert log.joined == 2


async def test_after_a_clean_stop_nothing_is_published_again(world, tenant, dedicated, broker):
    relay, consumer = await world.relaying(), await world.consuming()
    await world.publish(tenant, "a", "b")
    await world.publish(dedicated, "c")
    await world.noted(tenant, "a", "b")
    await world.noted(dedicated, "c")
    await watermark(world, 3)
    await relay.stop(1.0)
    await consumer.stop(1.0)
    await wipe(broker)
    await world.relaying()
    await world.publish(tenant, "new")
    await world.publish(dedicated, "newer")
    await world.published(tenant)
    await world.published(dedicated)
    assert sorted(await notes(world)) == ["new", "newer"]


async def test_only_what_a_group_lacks_is_published_again_and_first(world, tenant, broker):
    relay, consumer = await world.relaying(), await world.consuming()
    await world.publish(tenant, "applied")
    await world.noted(tenant, "applied")
    await watermark(world, 1)
    await consumer.stop(1.0)
    await world.publish(tenant, "lacking")
    await world.published(tenant)
    await relay.stop(1.0)
    await wipe(broker)
    await world.publish(tenant, "new")
    await world.relaying()
    await world.published(tenant)
    assert await notes(world) == ["lacking", "new"]


class Anew:
    """A producer that knows nothing of what was published before."""

    def __init__(self, world):
        self.world = world

    async def publish(self, records, *, timeout_s):
        return await self.world.producer().publish(records, timeout_s=timeout_s)


async def test_a_topic_that_is_made_anew_and_soon_longer_than_before_loses_nothing(world, tenant):
    await world.relaying(producer=Anew(world))
    await world.publish(tenant, "a", "b")
    await world.published(tenant)
    admin = AIOKafkaAdminClient(bootstrap_servers=world.servers)
    await admin.start()
    await admin.delete_topics([TOPIC])
    await admin.create_topics([NewTopic(TOPIC, 4, 1)])
    await admin.close()
    await world.publish(tenant, "c", "d", "e")
    await world.published(tenant)
    await world.consuming()
    await until(lambda: _complete(world, tenant, 5))
    assert set(await world.entries(tenant)) == set("abcde")


async def _complete(world, tenant, count):
    return len(await world.entries(tenant)) >= count


class FailingOnce:
    """A producer that publishes from the second time on."""

    def __init__(self, producer):
        self.producer = producer
        self.failed = False

    async def publish(self, records, *, timeout_s):
        if self.failed:
            return await self.producer.publish(records, timeout_s=timeout_s)
        self.failed = True
        raise LogUnavailable("it went again")


async def test_a_comparison_outlives_a_failure_to_publish_after_it(world, tenant, broker):
    relay = await world.relaying()
    await world.publish(tenant, "lacking")
    await world.published(tenant)
    await relay.stop(1.0)
    await wipe(broker)
    await world.publish(tenant, "new")
    await world.relaying(producer=FailingOnce(world.producer()))
    await world.published(tenant)
    assert await notes(world) == ["lacking", "new"]


async def test_a_group_without_a_watermark_needs_everything(world, tenant):
    outboxes = world.outboxes()
    connection = await world.installation.connect(None, world.installation.control)
    await connection.execute(
        "insert into tlsy.consumer_group (topic, consumer_group) values ($1, 'one'), ($1, 'two')", TOPIC
    )
    add = "insert into tlsy.consumer_watermark values ($1, $2, 1, 0, $3)"
    since = CLOCK.now() - timedelta(days=1)
    await connection.execute(add, TOPIC, "one", 9)
    assert await outboxes.applied(TOPIC, since) == []
    await connection.execute(add, TOPIC, "two", 5)
    assert await outboxes.applied(TOPIC, since) == [Applied(1, 0, 5)]


async def test_a_group_that_was_not_seen_for_long_is_not_waited_for(world):
    connection = await world.installation.connect(None, world.installation.control)
    await connection.execute(
        "insert into tlsy.consumer_group values ($1, 'one', now()), ($1, 'gone', now() - interval '30 days')",
        TOPIC,
    )
    await connection.execute(
        "insert into tlsy.consumer_watermark values ($1, 'one', 1, 0, 9), ($1, 'gone', 1, 0, 3)", TOPIC
    )
    applied = await world.outboxes().applied(TOPIC, CLOCK.now() - timedelta(days=7))
    assert applied == [Applied(1, 0, 9)]


class Relocated:
    """An inspector and a producer of one broker, which after the first batch answers as another one."""

    def __init__(self, world):
        self.inspector = world.inspector()
        self.producer = world.producer()
        self.moved = ""

    def __getattr__(self, name):
        return getattr(self.inspector, name)

    async def publish(self, records, *, timeout_s):
        positions = await self.producer.publish(records, timeout_s=timeout_s)
        self.moved = "another"
        return positions

    async def cluster_id(self):
        return self.moved or await self.inspector.cluster_id()


async def test_an_acknowledgement_is_not_believed_if_the_broker_is_another_afterwards(world, tenant):
    relocated = Relocated(world)
    await world.relaying(producer=relocated, inspector=relocated)
    await world.publish(tenant, "a")
    await world.published(tenant)
    assert await notes(world) == ["a", "a"]


async def test_a_watermark_is_not_raised_in_an_ended_incarnation(world, tenant):
    await world.relaying()
    await world.publish(tenant, "a")
    await world.published(tenant)
    books = GroupBooks("rules_engine", GROUP, world.tenancy("rules_engine"))
    partition = TopicPartition(topic=TOPIC, partition=0)
    await books.register([TOPIC])
    since = CLOCK.now() - timedelta(days=1)
    await books.raise_watermarks(partition, {1: 5})
    await books.end_log(TOPIC, 1)
    await books.raise_watermarks(partition, {1: 9})
    assert await world.outboxes().applied(TOPIC, since) == [Applied(1, 0, 5)]


async def test_a_watermark_never_falls(world, tenant):
    await world.outboxes().open_topic_log(TOPIC, "cluster")
    books = GroupBooks("rules_engine", GROUP, world.tenancy("rules_engine"))
    await books.register([TOPIC])
    for next_offset in (5, 3):
        await books.raise_watermarks(TopicPartition(topic=TOPIC, partition=0), {1: next_offset})
    assert await world.outboxes().applied(TOPIC, CLOCK.now() - timedelta(days=1)) == [Applied(1, 0, 5)]


class Books:
    """The part of Outboxes that TopicLog needs, in memory; `away` makes it fail."""

    def __init__(self):
        self.log: tuple[int, str] | None = None
        self.ends = {}
        self.away = False

    async def topic_log(self, topic):
        if self.away:
            raise PlacementUnavailable(Placement("c", "control", ""), "away")
        return self.log

    async def open_topic_log(self, topic, cluster_id):
        self.log = (1, cluster_id)

    async def next_topic_log(self, topic, after, cluster_id):
        if self.log is not None and self.log[0] == after:
            self.log = (after + 1, cluster_id)

    async def topic_ends(self, topic, log):
        return self.ends

    async def store_topic_ends(self, topic, log, ends):
        self.ends = ends


class Inspector:
    def __init__(self):
        self.id = "first"
        self.ends = {0: 0}

    async def cluster_id(self):
        return self.id

    async def end_offsets(self, topic):
        return self.ends

    async def ensure_topics(self, partitions):
        pass


@pytest.fixture
def books():
    return Books()


@pytest.fixture
def inspector():
    return Inspector()


@pytest.fixture
def log(books, inspector, fake_clock):
    return TopicLog(TOPIC, 1, outboxes=books, inspector=inspector, clock=fake_clock)


async def test_another_cluster_begins_another_incarnation(log, inspector, fake_clock):
    assert await log.current() == 1
    inspector.id = "second"
    fake_clock.advance(6)
    assert await log.current() == 2


async def test_an_end_that_went_back_begins_another_incarnation(log, books, inspector, fake_clock):
    inspector.ends = {0: 10}
    assert await log.current() == 1
    books.ends = {0: 9}
    fake_clock.advance(6)
    assert await log.current() == 1
    inspector.ends = {0: 9}
    fake_clock.advance(6)
    assert await log.current() == 2


async def test_a_record_where_another_was_begins_another_incarnation(log):
    current = await log.current()
    await log.verify(current, [Position(0, 8), Position(0, 9)], log.reached())
    reached = log.reached()
    await log.verify(current, [Position(0, 11)], reached)
    await log.verify(current, [Position(0, 10)], reached)
    with pytest.raises(LogChanged):
        await log.verify(current, [Position(0, 11)], log.reached())
    assert await log.current() == 2
    await log.verify(2, [Position(0, 0)], log.reached())


async def test_a_record_where_another_process_wrote_begins_another_incarnation(log, books, inspector):
    inspector.ends, books.log, books.ends = {0: 10}, (1, "first"), {0: 9}
    current = await log.current()
    with pytest.raises(LogChanged):
        await log.verify(current, [Position(0, 9)], log.reached())
    books.away = True
    with pytest.raises(PlacementUnavailable):
        await log.current()
    books.away = False
    assert await log.current() == 2


async def test_acknowledgements_of_another_cluster_are_not_believed(log, inspector):
    current = await log.current()
    inspector.id = "second"
    with pytest.raises(LogChanged):
        await log.verify(current, [], {})
    assert await log.current() == 2


async def test_acknowledgements_of_an_ended_incarnation_are_not_believed(log, books, fake_clock):
    ended = await log.current()
    books.log = (2, "first")
    fake_clock.advance(6)
    assert await log.current() == 2
    with pytest.raises(LogChanged):
        await log.verify(ended, [], {})


async def test_the_books_may_be_away_while_the_cluster_is_the_same(log, books, inspector, fake_clock):
    await log.current()
    books.away = True
    fake_clock.advance(6)
    assert await log.current() == 1
    inspector.id = "second"
    fake_clock.advance(6)
    with pytest.raises(PlacementUnavailable):
        await log.current()


@pytest.fixture
async def small_broker():
    control = BrokerControl(max_message_bytes=20_000, max_partition_bytes=40_000, max_total_bytes=80_000)
    await control.start()
    yield control
    await control.stop()


async def test_records_dropped_for_want_of_memory_are_published_again(installation, tenant, small_broker):
    world = World(installation=installation, servers=small_broker.address)
    await world.relaying(batch_bytes=8_000)
    consumer = await world.consuming()
    await world.publish(tenant, "first")
    await world.noted(tenant, "first")
    await consumer.stop(2.0)
    notes = [f"{number:02}" + "x" * 4_000 for number in range(15)]
    for note in notes:
        await world.publish(tenant, note)
        await world.published(tenant)
    assert len(await world.records()) < 12
    await world.consuming()

    async def complete():
        return set(await world.entries(tenant)) == {"first", *notes}

    await until(complete, 60.0)
    assert len(await world.entries(tenant)) == 16
    await world.stop()
