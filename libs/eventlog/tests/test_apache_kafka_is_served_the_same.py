from __future__ import annotations

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from libs.eventlog.tests.world import GROUP, TOPIC, World, note_down
from tlsy.contracts.events import EVENTS_ACCEPTED
from tlsy.eventlog.delivery import Each
from tlsy.eventlog.errors import FinalError, LogUnavailable
from tlsy.eventlog.kafka import KafkaInspector
from tlsy.runtime.brokers import Brokers
from tlsy.testkit.kafka import apache_kafka

pytestmark = pytest.mark.real

#: What Kafka calls a setting that was made for the topic itself.
OF_TOPIC = 1


@pytest.fixture
async def world(installation):
    async with apache_kafka() as address:
        made = World(installation=installation, servers=address)
        yield made
        await made.stop()


async def refuse_bad(delivery, tx):
    if delivery.message.events[0].id == "bad":
        raise FinalError("BAD_NOTE", "not that one")
    await note_down(delivery, tx)


async def test_from_outbox_to_effect_once_in_order_with_dead_letters(world, tenant, dedicated):
    relay = await world.relaying()
    first = await world.consuming({EVENTS_ACCEPTED: Each(refuse_bad)})
    notes = [f"{number:02}" for number in range(20)]
    for note in notes[:10]:
        await world.publish(tenant, note)
    await world.publish(dedicated, "bad", "good")
    await world.noted(tenant, *notes[:10])
    await world.noted(dedicated, "good")
    await first.stop(3.0)
    await relay.stop(3.0)
    await world.relaying()
    await world.consuming({EVENTS_ACCEPTED: Each(refuse_bad)})
    for note in notes[10:]:
        await world.publish(tenant, note)
    await world.noted(tenant, *notes)
    (letter,) = await world.records(f"{TOPIC}.{GROUP}.dlq")
    assert dict(letter.headers)["dlq-reason"] == b"BAD_NOTE"
    assert len(await world.records()) == 22


async def test_who_runs_the_brokers_says_how_many_replicas_a_topic_has():
    async with apache_kafka(replication=2) as address:
        inspector = KafkaInspector(Brokers(address), "test")
        try:
            with pytest.raises(LogUnavailable, match="InvalidReplicationFactor"):
                await inspector.ensure_topics({TOPIC: 1})
        finally:
            await inspector.stop()


async def test_a_topic_takes_every_row_whatever_the_broker_does_by_itself(world):
    inspector = world.inspector()
    await inspector.ensure_topics({TOPIC: 1})
    (answer,) = await inspector._admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC)])
    ((*_, entries),) = answer.resources
    of_topic = {name: value for name, value, _, source, *_ in entries if source == OF_TOPIC}
    assert of_topic == {"max.message.bytes": "1048588", "message.timestamp.type": "LogAppendTime"}
