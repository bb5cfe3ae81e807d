from __future__ import annotations

import asyncio

import aiokafka

from libs.eventlog.tests.world import TOPIC, until
from tlsy.eventlog.kafka import stop_consumer


async def test_who_stops_a_client_that_waits_for_its_broker_is_not_cancelled_with_its_fetch(
    world, broker, caplog
):
    await world.inspector().ensure_topics({TOPIC: 4})
    client = aiokafka.AIOKafkaConsumer(bootstrap_servers=broker.address, retry_backoff_ms=60_000)
    await client.start()
    partition = aiokafka.TopicPartition(TOPIC, 0)
    client.assign([partition])
    client.seek(partition, 0)
    await client.getmany(timeout_ms=200)
    await broker.stop()

    async def waits():
        return "Failed fetch messages" in caplog.text

    await until(waits)
    async with asyncio.timeout(30):
        await stop_consumer(client)
    await broker.start()
