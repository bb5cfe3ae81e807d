from __future__ import annotations

import asyncio
import random
import struct
from contextlib import suppress
from dataclasses import replace

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from kio.schema.api_versions.v3.request import ApiVersionsRequest
from kio.schema.errors import ErrorCode
from kio.schema.metadata.v8.request import MetadataRequest, MetadataRequestTopic

from tlsy.broker import BrokerSettings
from tlsy.testkit.kafka import embedded_broker

PRODUCE, FETCH, LIST_OFFSETS, METADATA, API_VERSIONS = 0, 1, 2, 3, 18


def frame(key, version, body=b"", *, size=None):
    content = struct.pack(">hhih", key, version, 7, -1) + body
    return struct.pack(">i", len(content) if size is None else size) + content


def metadata_request(*names):
    return MetadataRequest(
        topics=tuple(MetadataRequestTopic(name=name) for name in names),
        allow_auto_topic_creation=False,
        include_cluster_authorized_operations=False,
        include_topic_authorized_operations=False,
    )


SETTINGS = BrokerSettings(
    max_connections=5,
    max_topics=100,
    max_partitions=100,
    max_message_bytes=50_000,
    max_request_bytes=100_000,
    max_control_request_bytes=10_000,
)


@pytest.fixture
async def address():
    async with embedded_broker(SETTINGS) as address:
        yield address


@pytest.fixture
async def impatient():
    """The address of a broker that waits for no client longer than moments."""
    settings = replace(SETTINGS, frame_timeout_s=0.3, write_timeout_s=0.3, idle_timeout_s=0.6)
    async with embedded_broker(settings) as address:
        yield address


MALFORMED = {
    "a negative length": struct.pack(">ihh", -1, METADATA, 8),
    "an endless length": struct.pack(">ihh", 2**31 - 1, PRODUCE, 7),
    "beyond the limit of produce": frame(PRODUCE, 7, size=100_001),
    "beyond the limit of the others": frame(METADATA, 8, size=10_001),
    "shorter than a header": struct.pack(">ihh", 4, METADATA, 8),
    "an unknown API": frame(9999, 0),
    "a version too new": frame(METADATA, 99),
    "a version too old": frame(PRODUCE, 0),
    "a torn body": frame(METADATA, 8, b"\x00\x00\x00\x05\x00"),
    "an endless array": frame(METADATA, 8, struct.pack(">i", 2**31 - 1)),
    "a negative array": frame(METADATA, 8, struct.pack(">i", -9)),
    "text that is not UTF-8": frame(METADATA, 8, struct.pack(">ih", 1, 2) + b"\xff\xfe" + b"\x00\x00\x00"),
    "no topics to produce to": frame(PRODUCE, 7, struct.pack(">hhii", -1, -1, 0, -1)),
    "too many topics to produce to": frame(
        PRODUCE, 7, struct.pack(">hhii", -1, -1, 0, 201) + struct.pack(">hi", 0, 0) * 201
    ),
    "too many partitions to produce to": frame(
        PRODUCE, 7, struct.pack(">hhiihi", -1, -1, 0, 1, 0, 200) + struct.pack(">ii", 0, 0) * 200
    ),
    "another protocol": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_request_ends_its_connection_and_no_other(address, connect, sent):
    other, bad = await connect(address), await connect(address)
    bad.writer.write(sent)
    assert await bad.is_closed_by_broker()
    assert (await other.ask(metadata_request())).topics == ()


NULLS = {
    "topics": frame(LIST_OFFSETS, 5, struct.pack(">ibi", -1, 0, -1)),
    "partitions": frame(LIST_OFFSETS, 5, struct.pack(">ibihi", -1, 0, 1, 0, -1)),
    "partitions, in an older version": frame(LIST_OFFSETS, 1, struct.pack(">iihi", -1, 1, 0, -1)),
    "topics to fetch": frame(FETCH, 11, struct.pack(">4ib4ih", -1, 0, 0, 0, 0, 0, -1, -1, 0, 0)),
}


@pytest.mark.parametrize("sent", NULLS.values(), ids=NULLS.keys())
async def test_a_null_where_there_is_none_is_the_clients_fault(address, connect, caplog, sent):
    bad = await connect(address)
    bad.writer.write(sent)
    assert await bad.is_closed_by_broker()
    assert [(record.levelname, "malformed" in record.message) for record in caplog.records] == [
        ("WARNING", True)
    ]


async def test_any_mutation_of_a_request_leaves_the_broker_alive(address, connect, encoded):
    generator = random.Random(20)
    original = encoded(metadata_request("one", "two"))
    for _ in range(300):
        mutated = bytearray(original)
        for _ in range(generator.randint(1, 4)):
            mutated[generator.randrange(4, len(mutated))] = generator.randrange(256)
        client = await connect(address)
        client.writer.write(bytes(mutated))
        await client.close()
    survivor = await connect(address)
    assert (await survivor.ask(metadata_request())).topics == ()


async def test_a_connection_beyond_the_limit_is_closed_and_a_freed_place_is_given_again(address, connect):
    admitted = [await connect(address) for _ in range(5)]
    for client in admitted:
        await client.ask(metadata_request())
    refused = await connect(address)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await refused.ask(metadata_request())
    await admitted[0].close()
    async with asyncio.timeout(60):
        while True:
            client = await connect(address)
            try:
                await client.ask(metadata_request())
            except (ConnectionError, asyncio.IncompleteReadError):
                continue
            break


async def test_a_request_that_never_becomes_whole_ends_its_connection(impatient, connect):
    client = await connect(impatient)
    client.writer.write(frame(METADATA, 8)[:-2])
    assert await client.is_closed_by_broker()


async def test_a_request_that_arrives_byte_by_byte_has_no_more_time_than_another(impatient, connect):
    client = await connect(impatient)
    for byte in frame(METADATA, 8, bytes(100)):
        client.writer.write(bytes([byte]))
        with suppress(TimeoutError):
            assert await client.is_closed_by_broker(within_s=0.1)
            return
    pytest.fail("it was served to the end")


async def test_a_silent_connection_is_closed_after_the_idle_time(impatient, connect):
    client = await connect(impatient)
    await client.ask(metadata_request())
    assert await client.is_closed_by_broker()


async def test_a_client_that_does_not_read_is_disconnected(impatient, connect, encoded):
    client = await connect(impatient)
    client.writer.transport.pause_reading()
    asked = encoded(metadata_request(*(f"{number:0>200}" for number in range(40))))

    async def ask_on_and_on():
        while True:
            client.writer.write(asked)
            await client.writer.drain()

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(ask_on_and_on(), 60)


async def test_a_client_far_ahead_of_its_answers_is_not_read(
    address, connect, encoded, produce_request, long_poll
):
    client = await connect(address)
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    await admin.create_topics([NewTopic("any", 1, 1)])
    await admin.close()
    client.writer.write(encoded(long_poll("any", max_wait_s=5)))
    flood = encoded(produce_request("any", b"x" * 40_000)) * 500
    client.writer.write(flood)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.writer.drain(), 0.4)


async def test_an_unknown_version_of_api_versions_is_answered_in_the_oldest(address, connect, encoded):
    client = await connect(address)
    client.writer.write(frame(API_VERSIONS, 99))
    (size,) = struct.unpack(">i", await client.reader.readexactly(4))
    correlation_id, error = struct.unpack_from(">ih", await client.reader.readexactly(size))
    assert (correlation_id, error) == (7, ErrorCode.unsupported_version)
    response = await client.ask(ApiVersionsRequest(client_software_name="raw", client_software_version="1"))
    assert response.error_code is ErrorCode.none


async def test_a_failed_produce_without_acknowledgement_ends_the_connection(
    address, connect, encoded, batch, produce_request
):
    client = await connect(address)
    client.writer.write(encoded(produce_request("never-created", batch(b"x"), acks=0)))
    assert await client.is_closed_by_broker()
