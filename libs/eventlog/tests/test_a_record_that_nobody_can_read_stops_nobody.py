"""Kafka's brokers look into no record: header names may be no text, and records no records."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from libs.eventlog.tests.test_a_broadcast_misses_nothing import Copy
from libs.eventlog.tests.test_a_consumer_applies_each_event_once import dead_letters
from libs.eventlog.tests.world import TOPIC, event_of
from tlsy.eventlog.cloudevents import to_headers
from tlsy.eventlog.kafka import partition_of

NAME = "no-text"
GZIP, SNAPPY, LZ4, ZSTD = CODECS = (1, 2, 3, 4)


def batch_of(*events, names=(NAME,), compression=0):
    """A batch of records, each with a header of a name more."""
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 1_000_000)
    for at, event in enumerate(events):
        headers = [*to_headers(event, log=1), (names[at % len(names)], b"x")]
        builder.append(at, 1_700_000_000_000, event.key.encode(), event.data, headers)
    return bytes(builder.build())


def sealed(batch):
    """The batch with the checksum of what it holds now."""
    return batch[:17] + struct.pack(">I", calc_crc32c(batch[21:])) + batch[21:]


async def put(world, tenant, batch, *, topic=TOPIC, partitions=4):
    """Write a batch as it is beside the tenant's own records."""
    await world.inspector().ensure_topics({topic: partitions})
    partition = partition_of(tenant.tenant_id.hex.encode(), partitions)
    client = AIOKafkaClient(bootstrap_servers=world.servers)
    await client.bootstrap()
    await client.set_topics([topic])
    node = client.get_random_node()
    request = ProduceRequest(None, -1, 5_000, [(topic, [(partition, batch)])])
    answer = await client.send(node, request)
    assert answer.topics[0][1][0][1] == 0
    await client.close()


def no_text(batch):
    return sealed(batch.replace(NAME.encode(), b"\xff\xfe\xfd-ext"))


async def test_a_header_whose_name_is_no_text_harms_no_record(world, tenant):
    await world.send(event_of(tenant, "before"))
    events = [event_of(tenant, note) for note in ("a", "b", "c")]
    await put(world, tenant, no_text(batch_of(*events, names=("fine", NAME, "fine"))))
    await world.send(event_of(tenant, "after"))
    await world.consuming()
    await world.noted(tenant, "before", "a", "b", "c", "after")


async def test_the_alien_name_is_read_as_what_it_is(world, tenant):
    (event,) = [replace(event_of(tenant, "a"), source="identity")]
    await put(world, tenant, no_text(batch_of(event)))
    await world.consuming()
    (letter,) = await dead_letters(world, 1)
    headers = dict(letter.headers)
    assert (headers["dlq-reason"], headers["\\xff\\xfe\\xfd-ext"]) == (b"FOREIGN_SOURCE", b"x")


def no_records(batch):
    return sealed(batch[:61] + b"\x7f" * (len(batch) - 61))


def of_no_codec(batch):
    return sealed(batch[:61] + b"no codec" + batch[69:])


def cut(batch):
    return sealed(batch[:8] + struct.pack(">i", len(batch) - 13) + batch[12:-1])


def at_one_offset(batch):
    """The first record says that it is the last; the length before it takes two bytes."""
    broken = no_text(batch)
    return sealed(broken[:65] + b"\x02" + broken[66:])


@pytest.mark.parametrize(
    ("break_it", "compression"),
    [
        (no_records, 0),
        (at_one_offset, 0),
        *((break_it, codec) for break_it in (of_no_codec, cut) for codec in CODECS),
    ],
)
async def test_what_is_no_record_at_all_is_one_dead_letter(world, tenant, break_it, compression):
    await world.send(event_of(tenant, "before"))
    broken = break_it(batch_of(event_of(tenant, "a"), event_of(tenant, "b"), compression=compression))
    await put(world, tenant, broken)
    await world.send(event_of(tenant, "after"))
    await world.consuming()
    await world.noted(tenant, "before", "after")
    (letter,) = await dead_letters(world, 1)
    assert dict(letter.headers)["dlq-reason"] == b"MALFORMED_RECORD"
    assert letter.value[61:] == broken[61:]


async def test_more_records_than_anybody_sends_at_once_are_one_dead_letter(world, tenant):
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1_000_000)
    for at in range(20_001):
        builder.append(at, 1_700_000_000_000, None, b"", [(NAME, b"")])
    await put(world, tenant, no_text(bytes(builder.build())))
    await world.send(event_of(tenant, "after"))
    await world.consuming()
    await world.noted(tenant, "after")
    (letter,) = await dead_letters(world, 1)
    assert dict(letter.headers)["dlq-reason"] == b"MALFORMED_RECORD"


@pytest.mark.parametrize("compression", CODECS)
async def test_a_batch_of_which_a_codec_makes_too_much_is_one_dead_letter(world, tenant, compression):
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 20_000_000)
    event = event_of(tenant, "a")
    builder.append(0, 1_700_000_000_000, event.key.encode(), event.data, list(to_headers(event, log=1)))
    builder.append(1, 1_700_000_000_000, None, bytes(9 * 1024 * 1024), [])
    batch = bytes(builder.build())
    await put(world, tenant, batch)
    await world.send(event_of(tenant, "after"))
    await world.consuming()
    await world.noted(tenant, "after")
    (letter,) = await dead_letters(world, 1)
    assert letter.value[61:] == batch[61:]


async def test_a_copy_in_memory_follows_past_it(world, tenant):
    copy = Copy(world)
    await world.inspector().ensure_topics({TOPIC: 4})
    world.components.append(broadcast := copy.broadcast())
    await broadcast.start()
    await broadcast.complete()
    await world.send(event_of(tenant, "before"))
    await put(world, tenant, no_text(batch_of(event_of(tenant, "a"))))
    await put(world, tenant, no_records(batch_of(event_of(tenant, "lost"))))
    await world.send(event_of(tenant, "after"))
    await copy.has("before", "a", "after")
    assert copy.snapshots == 1
