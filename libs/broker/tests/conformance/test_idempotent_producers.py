from __future__ import annotations

import asyncio

from kio.schema.errors import ErrorCode
from kio.schema.init_producer_id.v0 import InitProducerIdRequest

from tlsy.broker.api import NO_THROTTLE


async def producer_id_of(client):
    async with asyncio.timeout(60):
        while True:
            response = await client.ask(
                InitProducerIdRequest(transactional_id=None, transaction_timeout=NO_THROTTLE)
            )
            if not response.error_code.retriable:
                break
    assert (response.error_code, response.producer_epoch) == (ErrorCode.none, 0)
    return response.producer_id


async def outcome(client, request):
    (topic,) = (await client.ask(request)).responses
    (partition,) = topic.partition_responses
    return partition.error_code, partition.base_offset


async def test_every_producer_gets_an_id_of_its_own(kafka, connect):
    client = await connect(kafka.address)
    assert len({await producer_id_of(client) for _ in range(5)}) == 5


async def test_a_resent_batch_is_acknowledged_and_stored_once(kafka, connect, batch, produce_request, read):
    topic = await kafka.create_topic()
    client = await connect(kafka.address)
    identity = {"producer_id": await producer_id_of(client), "epoch": 0}
    first = produce_request(topic, batch(b"a", b"b", sequence=0, **identity))
    second = produce_request(topic, batch(b"c", sequence=2, **identity))
    assert await outcome(client, first) == (ErrorCode.none, 0)
    assert await outcome(client, second) == (ErrorCode.none, 2)
    assert (await outcome(client, first))[0] is ErrorCode.none
    assert (await outcome(client, second))[0] is ErrorCode.none
    assert await outcome(client, produce_request(topic, batch(b"d", sequence=3, **identity))) == (
        ErrorCode.none,
        3,
    )
    records = await read(await kafka.consumer(topic), 4)
    assert [record.value for record in records] == [b"a", b"b", b"c", b"d"]


async def test_a_resend_over_another_connection_is_stored_once(kafka, connect, batch, produce_request):
    topic = await kafka.create_topic()
    first, second = await connect(kafka.address), await connect(kafka.address)
    request = produce_request(
        topic, batch(b"a", producer_id=await producer_id_of(first), epoch=0, sequence=0)
    )
    await outcome(first, request)
    await outcome(second, request)
    (plain,) = await kafka.send(topic, b"next")
    assert plain.offset == 1


async def test_a_gap_in_the_sequence_is_refused(kafka, connect, batch, produce_request):
    topic = await kafka.create_topic()
    client = await connect(kafka.address)
    identity = {"producer_id": await producer_id_of(client), "epoch": 0}
    await outcome(client, produce_request(topic, batch(b"a", sequence=0, **identity)))
    error, _ = await outcome(client, produce_request(topic, batch(b"c", sequence=2, **identity)))
    assert error is ErrorCode.out_of_order_sequence_number


async def test_an_older_epoch_is_fenced(kafka, connect, batch, produce_request):
    topic = await kafka.create_topic()
    client = await connect(kafka.address)
    producer_id = await producer_id_of(client)
    newer = batch(b"a", producer_id=producer_id, epoch=1, sequence=0)
    older = batch(b"b", producer_id=producer_id, epoch=0, sequence=0)
    assert (await outcome(client, produce_request(topic, newer)))[0] is ErrorCode.none
    assert (await outcome(client, produce_request(topic, older)))[0] is ErrorCode.invalid_producer_epoch


async def test_a_new_epoch_begins_its_sequence_at_zero(kafka, connect, batch, produce_request):
    topic = await kafka.create_topic()
    client = await connect(kafka.address)
    producer_id = await producer_id_of(client)
    for epoch, sequence, error in (
        (0, 0, ErrorCode.none),
        (1, 1, ErrorCode.out_of_order_sequence_number),
        (1, 0, ErrorCode.none),
    ):
        records = batch(b"a", producer_id=producer_id, epoch=epoch, sequence=sequence)
        assert (await outcome(client, produce_request(topic, records)))[0] is error


async def test_an_unknown_level_of_acknowledgement_is_refused(kafka, connect, batch, produce_request):
    topic = await kafka.create_topic()
    client = await connect(kafka.address)
    error, _ = await outcome(client, produce_request(topic, batch(b"a"), acks=2))
    assert error is ErrorCode.invalid_required_acks


async def test_sequences_are_counted_per_partition(kafka, connect, batch, produce_request):
    topic = await kafka.create_topic(2)
    client = await connect(kafka.address)
    records = batch(b"a", producer_id=await producer_id_of(client), epoch=0, sequence=0)
    for partition in (0, 1):
        assert await outcome(client, produce_request(topic, records, partition=partition)) == (
            ErrorCode.none,
            0,
        )


async def test_a_damaged_batch_is_refused(kafka, connect, batch, produce_request):
    topic = await kafka.create_topic()
    client = await connect(kafka.address)
    damaged = bytearray(batch(b"value"))
    damaged[-1] ^= 1
    error, _ = await outcome(client, produce_request(topic, bytes(damaged)))
    assert error is ErrorCode.corrupt_message


async def test_an_unknown_partition_is_refused(kafka, connect, batch, produce_request):
    topic = await kafka.create_topic(1)
    client = await connect(kafka.address)
    error, _ = await outcome(client, produce_request(topic, batch(b"x"), partition=1))
    assert error is ErrorCode.unknown_topic_or_partition
