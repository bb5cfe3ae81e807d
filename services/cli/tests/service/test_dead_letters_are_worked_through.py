from __future__ import annotations

import base64

import pytest
from aiokafka import AIOKafkaProducer

from tlsy.eventlog.dead_letters import DeadLetters
from tlsy.eventlog.errors import FinalError
from tlsy.eventlog.kafka import KafkaInspector, KafkaProducer
from tlsy.eventlog.ports import Received
from tlsy.runtime.brokers import Brokers
from tlsy.runtime.clock import SystemClock
from tlsy.testkit.kafka import embedded_broker

TOPIC = "tlsy.ingestion"
CLOCK = SystemClock()


@pytest.fixture
async def place():
    """The options that name a group with three letters."""
    async with embedded_broker() as brokers:
        door = Brokers(brokers)
        producer, inspector = KafkaProducer(door, "test"), KafkaInspector(door, "test")
        letters = DeadLetters("rules-engine", producer, inspector, CLOCK)
        await letters.ensure_topics([TOPIC], {TOPIC: 1})
        for number in range(3):
            record = Received(
                topic=TOPIC,
                partition=0,
                offset=number,
                time=CLOCK.now(),
                key=b"key",
                value=b"data",
                headers=(("tenantid", b"t-1"), ("authorization", b"Bearer secret")),
            )
            await letters.write(record, FinalError("BAD", "not that one"), 1)
        yield ("--brokers", brokers, "--topic", TOPIC, "--group", "rules-engine")
        await producer.stop()
        await inspector.stop()


async def numbers(tlsy, place):
    result = await tlsy("dead-letters", "list", *place, "-o", "json")
    return [row["letter"] for row in result.json]


async def test_they_are_listed_and_shown_without_credentials(tlsy, place):
    assert await numbers(tlsy, place) == [0, 1, 2]
    result = await tlsy("dead-letters", "show", "1", *place, "-o", "json")
    assert (result.json["reason"], result.json["tenant"]) == ("BAD", "t-1")
    assert base64.b64decode(result.json["data"]) == b"data"
    assert "secret" not in result.out


async def test_they_are_put_back_or_discarded_from_the_oldest_on(tlsy, place):
    result = await tlsy("dead-letters", "replay", "--through", "0", *place, "-o", "json")
    assert (result.code, result.json) == (0, {"topic": TOPIC, "group": "rules-engine", "replayed": 1})
    assert await numbers(tlsy, place) == [1, 2]
    result = await tlsy("dead-letters", "discard", "--through", "1", *place, "-o", "json")
    assert (result.code, result.json) == (0, {"topic": TOPIC, "group": "rules-engine", "discarded": 1})
    assert await numbers(tlsy, place) == [2]
    assert (await tlsy("dead-letters", "discard", "--through", "1", *place)).code == 1


async def test_a_replay_that_ends_on_the_way_tells_how_far_it_got(tlsy, place):
    # As a letter it is small, for it is compressed; as a record it is more than the topic takes.
    writer = AIOKafkaProducer(bootstrap_servers=place[1], compression_type="gzip", max_request_size=4_000_000)
    await writer.start()
    try:
        await writer.send_and_wait(f"{TOPIC}.rules-engine.dlq", bytes(2_000_000))
    finally:
        await writer.stop()
    result = await tlsy("dead-letters", "replay", "--through", "9", *place)
    happened, then = result.err.splitlines()
    assert (result.code, "3 record(s) put back; 1 letter(s) from 3 on wait as before: " in happened) == (
        1,
        True,
    )
    assert "discard that letter" in then
    assert "Error(" not in happened
    assert await numbers(tlsy, place) == [3]


async def test_a_broker_that_is_away_is_told(tlsy, place):
    result = await tlsy("dead-letters", "list", "--brokers", "127.0.0.1:1", *place[2:])
    happened, then = result.err.splitlines()
    assert result.code == 3
    assert happened.endswith("about tlsy.ingestion can be read: no broker answers at 127.0.0.1:1.")
    assert "--brokers" in then


@pytest.mark.parametrize("brokers", ["", "kafka:9o92", "kafka:99999", "kafka:1,", "[::1"])
async def test_what_is_no_address_is_told(tlsy, brokers):
    place = ("--brokers", brokers, "--topic", TOPIC, "--group", "rules-engine")
    result = await tlsy("dead-letters", "discard", "--through", "1", *place)
    assert (result.code, "is no address" in result.err) == (2, True)


async def test_how_to_get_in_is_part_of_the_address(tlsy, place, tmp_path):
    secret = tmp_path / "password"
    secret.write_text("secret")
    address = f"{place[1]}?ca_file={tmp_path}/none.pem&user=ops&password_file={secret}"
    for command in (("list",), ("replay", "--through", "0")):
        result = await tlsy("dead-letters", *command, "--brokers", address, *place[2:])
        assert (result.code, "none.pem" in result.err) == (2, True)
