from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaError

from tlsy.eventlog.errors import LogUnavailable
from tlsy.eventlog.kafka import KafkaProducer, _positions
from tlsy.eventlog.ports import Position, Record


def record(key):
    return Record(topic="t", key=key, value=b"", headers=(), time=datetime(2026, 1, 1, tzinfo=UTC))


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
    producer = KafkaProducer(broker.address, "test")
    await broker.stop()
    with pytest.raises(LogUnavailable):
        await producer.publish([record(b"a")], timeout_s=0.5)
    await broker.start()
