from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import pytest_asyncio

from libs.eventlog.tests.world import TOPIC, World, until
from tlsy.eventlog.errors import LogUnavailable
from tlsy.eventlog.kafka import KafkaInspector, KafkaProducer
from tlsy.eventlog.kafka_readers import KafkaGroupReader, KafkaTail
from tlsy.eventlog.letter_box import LetterBox
from tlsy.runtime.brokers import Brokers
from tlsy.testkit.certificates import Authority
from tlsy.testkit.kafka import Guard, apache_kafka

pytestmark = pytest.mark.real
#: aiokafka does not wait until a connection that was refused has ended; this loop ends after the broker.
outlives_the_broker = pytest.mark.asyncio(loop_scope="module")
#: Two clients, one after the other, wait some seconds between two tries.
DEADLINE_S = 60.0


class Place:
    """A guarded broker, and what opens it."""

    def __init__(self, directory):
        self.directory = directory
        self.ours = Authority(directory, "ours")
        self.guard = Guard(tls=self.ours.issue("server"), user="tlsy", password="opens it")
        self.address = ""

    def password(self, name, text):
        path = self.directory / name
        path.write_text(f"{text}\n")
        return path

    def door(self, **changes):
        made = Brokers(
            f"localhost:{self.guard.ports[0]}",
            ca_file=self.ours.file,
            user=self.guard.user,
            password_file=self.password("password", self.guard.password),
        )
        return replace(made, **changes)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory):
    made = Place(tmp_path_factory.mktemp("door"))
    async with apache_kafka(guard=made.guard) as made.address:
        yield made


@asynccontextmanager
async def inspecting(brokers):
    inspector = KafkaInspector(brokers, "test")
    try:
        yield inspector
    finally:
        await inspector.stop()


async def refusal(brokers):
    """What an operator is told, by a broker that is not too slow to say it."""
    told = ["TimeoutError"]

    async def said():
        async with inspecting(brokers) as inspector:
            with pytest.raises(LogUnavailable) as raised:
                await inspector.cluster_id()
        told.append(str(raised.value))
        return "TimeoutError" not in told[-1]

    await until(said, DEADLINE_S)
    assert "opens it" not in told[-1]
    return told[-1]


async def test_from_outbox_to_effect_and_what_waited_goes_on_once_the_password_is_right(
    place, installation, dedicated, log_lines
):
    file = place.password("mended", "another")
    door = place.door(password_file=file)
    world = World(installation=installation, servers=place.address, door=door)
    try:
        await world.relaying()
        await world.consuming()
        await world.publish(dedicated, "first", "second")

        async def told():
            return any("refuses user tlsy" in str(line.get("error")) for line in log_lines)

        await until(told, DEADLINE_S)
        assert await world.entries(dedicated) == []
        file.write_text(place.guard.password)

        async def noted():
            return len(await world.entries(dedicated)) == 2

        await until(noted, DEADLINE_S)
        await world.noted(dedicated, "first", "second")
        assert len(await world.records()) == 2
    finally:
        await world.stop()


@outlives_the_broker
async def test_every_client_gets_in_by_certificate_and_password(place):
    client = place.ours.issue("client")
    door = place.door(
        servers=f"localhost:{place.guard.ports[1]}", cert_file=client.cert_file, key_file=client.key_file
    )
    async with inspecting(door) as inspector:
        await inspector.ensure_topics({"mutual": 1, "mutual.any.dlq": 1})
        assert await inspector.letters("mutual", "any") == (0, None)
    tail = KafkaTail(door, ["mutual"], "test")
    await tail.open()
    assert not await tail.lost()
    await tail.close()


@outlives_the_broker
async def test_each_refusal_says_what_is_wrong(place):
    theirs = Authority(place.directory, "theirs")
    mutual = f"localhost:{place.guard.ports[1]}"
    assert "theirs.pem does not vouch for" in await refusal(place.door(ca_file=theirs.file))
    by_number = f"127.0.0.1:{place.guard.ports[0]}"
    assert "certificate of another host" in await refusal(place.door(servers=by_number))
    wrong = place.password("wrong", "opens nothing")
    assert "refuses user tlsy and its password" in await refusal(place.door(password_file=wrong))
    assert "showed no certificate" in await refusal(place.door(servers=mutual))
    stranger = theirs.issue("stranger")
    shown = place.door(servers=mutual, cert_file=stranger.cert_file, key_file=stranger.key_file)
    assert "showed " + str(stranger.cert_file) in await refusal(shown)
    assert "does not answer by TLS" in await refusal(place.door(servers=place.address))
    assert "gone cannot be read" in await refusal(place.door(password_file=place.directory / "gone"))


async def nothing(partitions):
    """For a group that nobody gets into."""


@outlives_the_broker
async def test_every_client_that_is_refused_says_so(place):
    door = place.door(password_file=place.password("no", "no"))
    producer, reader = KafkaProducer(door, "test"), KafkaGroupReader(door, "any", [TOPIC], "test")
    with pytest.raises(LogUnavailable, match="refuses user tlsy"):
        await producer.publish([], timeout_s=20)
    with pytest.raises(LogUnavailable, match="refuses user tlsy"):
        await reader.start(nothing, nothing)
    await reader.stop()
    with pytest.raises(LogUnavailable, match="refuses user tlsy"):
        async with LetterBox.opened(door, TOPIC, "any"):
            pass


@outlives_the_broker
async def test_who_reads_when_a_file_is_written_anew_begins_anew(place):
    door = place.door()
    async with inspecting(door) as inspector:
        await inspector.ensure_topics({"rotated": 1})
    tail = KafkaTail(door, ["rotated"], "test")
    await tail.open()
    assert await tail.fetch(max_records=1, timeout_s=0.1) == []
    place.password("password", place.guard.password)
    with pytest.raises(LogUnavailable, match="written anew"):
        await tail.fetch(max_records=1, timeout_s=0.1)
    await tail.close()
