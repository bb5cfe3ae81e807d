from __future__ import annotations

import tracemalloc

import pytest
from kio.schema.errors import ErrorCode

from tlsy.broker import BrokerSettings
from tlsy.broker.batch import parse_batch
from tlsy.broker.log import PartitionLog
from tlsy.broker.producers import Producers
from tlsy.broker.topics import TopicError, TopicStore

MESSAGE = 10_000
PARTITION = 100_000
TOTAL = 250_000


@pytest.fixture
def store():
    return TopicStore(
        BrokerSettings(
            max_message_bytes=MESSAGE,
            max_partition_bytes=PARTITION,
            max_total_bytes=TOTAL,
            max_topics=10,
            max_partitions=20,
        )
    )


@pytest.fixture
def fill(store, batch):
    def append(topic, count, size=5_000):
        partition = store.partition(topic, 0)
        for _ in range(count):
            store.append(partition, parse_batch(batch(b"x" * size), max_bytes=MESSAGE), 0)
        return partition.log

    return append


def test_a_full_partition_drops_its_oldest_and_keeps_its_newest(store, fill):
    store.create("a", 1)
    log = fill("a", 100)
    assert log.size_bytes <= PARTITION
    assert (log.end_offset, log.start_offset > 50) == (100, True)
    assert log.read(log.start_offset, 1, at_least_one=True)[:8] == log.start_offset.to_bytes(8, "big")


def test_offsets_by_time_begin_where_the_records_begin(store, fill):
    store.create("a", 1)
    log = fill("a", 100)
    assert log.first_since(0)[0] == log.start_offset


def test_all_partitions_together_stay_within_the_total(store, fill):
    for topic in "abcd":
        store.create(topic, 1)
    logs = [fill(topic, 40) for topic in "abcd"]
    assert store.size_bytes == sum(log.size_bytes for log in logs) <= TOTAL


def test_the_largest_partition_pays_for_the_others(store, fill):
    for topic in ("small", "large", "middle", "next"):
        store.create(topic, 1)
    small = fill("small", 1)
    fill("large", 18)
    fill("middle", 17)
    fill("next", 16)
    assert (small.start_offset, small.end_offset) == (0, 1)


def test_the_newest_batch_is_never_what_is_dropped(store, fill):
    for number in range(9):
        store.create(f"t{number}", 1)
        for _ in range(5):
            log = fill(f"t{number}", 1, size=9_000)
            assert log.read(log.end_offset - 1, 1, at_least_one=True)


def test_the_memory_of_a_deleted_topic_is_free_again(store, fill):
    store.create("a", 1)
    fill("a", 10)
    store.delete("a")
    assert store.size_bytes == 0


def test_the_accounted_size_covers_what_python_needs(batch):
    raw = parse_batch(batch(b"x"), max_bytes=MESSAGE)
    log = PartitionLog(max_bytes=10_000_000, max_producers=1)
    tracemalloc.start()
    try:
        for _ in range(5_000):
            log.append(raw)
        used_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used_bytes <= log.size_bytes <= 2 * used_bytes


def test_topics_and_partitions_are_limited(store):
    store.create("wide", 15)
    with pytest.raises(TopicError) as too_many_partitions:
        store.create("wider", 6)
    with pytest.raises(TopicError) as grown_too_far:
        store.grow("wide", 21)
    for number in range(5):
        store.create(f"t{number}", 1)
    store.delete("wide")
    for number in range(5, 10):
        store.create(f"t{number}", 1)
    with pytest.raises(TopicError) as too_many_topics:
        store.create("one-more", 1)
    codes = {error.value.code for error in (too_many_partitions, grown_too_far, too_many_topics)}
    assert codes == {ErrorCode.policy_violation}


def test_the_producer_silent_for_longest_is_forgotten(batch):
    producers = Producers(limit=2)
    one, two, three = (
        parse_batch(batch(b"x", producer_id=number, epoch=0, sequence=0), max_bytes=MESSAGE)
        for number in (1, 2, 3)
    )
    producers.record(one, 0)
    producers.record(two, 1)
    producers.record(one, 2)
    producers.record(three, 3)
    assert len(producers) == 2
    assert (producers.duplicate_of(one), producers.duplicate_of(two)) == (0, None)
