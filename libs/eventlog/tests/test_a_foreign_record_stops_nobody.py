"""Anyone with access to the broker may write anything into a topic."""

from __future__ import annotations

import pytest
from aiokafka import AIOKafkaProducer

from libs.eventlog.tests.test_a_consumer_applies_each_event_once import DLQ, dead_letters
from libs.eventlog.tests.world import CLOCK, GROUP, TOPIC, event_of
from tlsy.eventlog.dead_letters import DeadLetters
from tlsy.eventlog.errors import FinalError, LogUnavailable, RecordTooLarge
from tlsy.eventlog.ports import Position, Received

MOST_THAT_A_BROKER_TAKES = 1_048_588


async def write(world, tenant, *, value=b"x", headers=(), compression=None):
    """Write a record beside the tenant's own, as another program would."""
    await world.inspector().ensure_topics({TOPIC: 4})
    producer = AIOKafkaProducer(
        bootstrap_servers=world.servers,
        compression_type=compression,
        max_request_size=8_000_000,
        max_batch_size=8_000_000,
    )
    await producer.start()
    try:
        key = tenant.tenant_id.hex.encode()
        await producer.send_and_wait(TOPIC, value, key=key, headers=list(headers))
    finally:
        await producer.stop()


@pytest.mark.parametrize("name", ["log", "ce_id", "foreign"])
async def test_a_header_without_a_value_is_refused(world, tenant, name):
    await write(world, tenant, headers=[(name, None)])
    await world.send(event_of(tenant, "after"))
    await world.consuming()
    await world.noted(tenant, "after")
    assert len(await dead_letters(world, 1)) == 1


@pytest.mark.parametrize(
    ("value", "compression"),
    [(b"0" * 5_000_000, "gzip"), (b"0" * (MOST_THAT_A_BROKER_TAKES - 120), None)],
)
async def test_a_record_that_no_letter_can_hold_is_cut(world, tenant, value, compression):
    await write(world, tenant, value=value, compression=compression)
    await world.send(event_of(tenant, "after"))
    await world.consuming()
    await world.noted(tenant, "after")
    (letter,) = await dead_letters(world, 1)
    assert int(dict(letter.headers)["dlq-truncated"]) == len(value) + 32
    assert value.startswith(letter.value)
    assert len(letter.value) < len(value)


async def test_a_failing_decoder_refuses_the_record(world, tenant):
    async def broken(record):
        raise ZeroDivisionError

    await world.send(event_of(tenant, "a"))
    await world.consuming(decode=broken)
    (letter,) = await dead_letters(world, 1)
    assert dict(letter.headers)["dlq-reason"] == b"UNREADABLE_RECORD"


class SmallBroker:
    """Takes records of at most so many bytes."""

    def __init__(self, limit):
        self.limit = limit
        self.taken = []

    async def publish(self, records, *, timeout_s):
        for record in records:
            if len(record.value) + len(record.key) + sum(len(v) for _, v in record.headers) > self.limit:
                raise RecordTooLarge("no", [])
        self.taken += records
        return [Position(0, 0)] * len(records)


def received(*, key=b"k", value=b"v", headers=()):
    return Received(
        topic=TOPIC, partition=0, offset=0, time=CLOCK.now(), key=key, value=value, headers=headers
    )


@pytest.mark.parametrize(
    "record",
    [
        received(value=b"v" * 2_000_000),
        received(key=b"k" * 2_000_000),
        received(headers=(("h", b"h" * 2_000_000),)),
    ],
)
async def test_a_letter_is_cut_to_what_the_broker_takes(world, record):
    broker = SmallBroker(100_000)
    letters = DeadLetters(GROUP, broker, world.inspector(), CLOCK)
    await letters.write(record, FinalError("BAD", "bad"), 1)
    (letter,) = broker.taken
    assert letter.topic == DLQ
    assert dict(letter.headers)["dlq-reason"] == b"BAD"
    assert int(dict(letter.headers)["dlq-truncated"]) >= 2_000_000


async def test_a_broker_that_takes_nothing_is_waited_for(world):
    with pytest.raises(LogUnavailable):
        await DeadLetters(GROUP, SmallBroker(10), world.inspector(), CLOCK).write(
            received(value=b"v" * 2_000_000), FinalError("BAD", "bad"), 1
        )
