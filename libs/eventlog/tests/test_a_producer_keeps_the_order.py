from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaError

from libs.eventlog.tests.world import TOPIC, BrokerControl, World, event_of, note_of, until
from tlsy.eventlog.errors import LogUnavailable, RecordTooLarge
from tlsy.eventlog.kafka import KafkaProducer, _positions, partition_of
from tlsy.eventlog.ports import Position, Record
from tlsy.runtime.brokers import Brokers


def record(key, size=0, topic="t"):
    return Record(topic=topic, key=key, value=bytes(size), headers=(), time=datetime(2026, 1, 1, tzinfo=UTC))


def future(outcome):
    made = asyncio.get_running_loop().create_future()
    if isinstance(outcome, Exception):
        made.set_exception(outcome)
    else:
        made.set_result(SimpleNamespace(partition=0, offset=outcome))
    return made


async def test_nothing_of_a_key_counts_after_a_record_of_it_that_failed():
    records = [record(b"a"), record(b"b"), record(b"a"), record(b"b")]
    futures = [future(KafkaError()), future(1), future(2), future(3)]
    assert _positions(records, futures) == [None, Position(0, 1), None, Position(0, 3)]


async def test_what_was_not_sent_does_not_count():
    assert _positions([record(b"a"), record(b"b")], [future(1)]) == [Position(0, 1), None]


async def test_a_producer_without_a_broker_says_so_within_its_deadline(broker):
    producer = KafkaProducer(Brokers(broker.address), "test")
    await broker.stop()
    with pytest.raises(LogUnavailable):
        await producer.publish([record(b"a")], timeout_s=0.5)
    await broker.start()


@pytest.fixture
async def strict_broker():
    control = BrokerControl(max_message_bytes=20_000)
    await control.start()
    yield control
    await control.stop()


async def test_what_follows_a_batch_that_the_broker_refuses_is_not_written(installation, strict_broker):
    world = World(installation=installation, servers=strict_broker.address)
    await world.inspector().ensure_topics({TOPIC: 1})
    first_batch = [record(b"a", 111_000, TOPIC)] * 8
    with pytest.raises(RecordTooLarge) as refused:
        await world.producer().publish([*first_batch, record(b"a", 19_000, TOPIC)], timeout_s=20)
    assert refused.value.positions == [None] * 9
    assert await world.records() == []
    await world.stop()


async def test_a_row_that_the_broker_does_not_take_is_told_and_kept_and_stops_no_other_partition(
    installation, tenant, strict_broker, log_lines
):
    world = World(installation=installation, servers=strict_broker.address)
    keys = [f"{tenant.tenant_id.hex}/{number}" for number in range(100)]
    other = next(key for key in keys if partition_of(key.encode(), 4) != partition_of(keys[0].encode(), 4))
    large = event_of(tenant, "x" * 30_000, key=keys[0])
    await world.write(tenant, large, event_of(tenant, "small", key=other))
    await world.relaying()
    refused = world.metrics.relay_failures.labels("ingestion", "RECORD_TOO_LARGE")

    async def refused_again():
        return refused._value.get() >= 3

    await until(refused_again)
    assert "set its max.message.bytes to 1048588" in log_lines.text
    assert await world.unpublished(tenant) == 1
    assert [note_of(found.value) for found in await world.records()] == ["small"]
    await world.stop()
