from __future__ import annotations

import asyncio
import uuid
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tlsy.testkit.kafka import apache_kafka, embedded_broker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

DEADLINE_S = 60.0
POLL_INTERVAL_S = 0.02


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def apache_kafka_address() -> AsyncIterator[str]:
    async with apache_kafka() as address:
        yield address


@pytest_asyncio.fixture
async def embedded_address() -> AsyncIterator[str]:
    async with embedded_broker() as address:
        yield address


@pytest.fixture(params=["embedded", pytest.param("apache_kafka", marks=pytest.mark.real)])
def broker_address(request: pytest.FixtureRequest) -> str:
    """The bootstrap address of each broker that the suite is run against."""
    return str(request.getfixturevalue(f"{request.param}_address"))


class Kafka:
    """An aiokafka client of everything, whose parts are closed when the test ends."""

    def __init__(self, address: str, stack: AsyncExitStack) -> None:
        self.address = address
        self._stack = stack
        self._admin: AIOKafkaAdminClient | None = None
        self._prober: AIOKafkaConsumer | None = None

    async def admin(self) -> AIOKafkaAdminClient:
        if self._admin is None:
            self._admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
            await self._admin.start()
            self._stack.push_async_callback(self._admin.close)
        return self._admin

    async def create_topic(self, partitions: int = 1, name: str | None = None, **configs: str) -> str:
        name = name or f"topic-{uuid.uuid4()}"
        wanted = NewTopic(name, partitions, 1, topic_configs=configs)
        response = await (await self.admin()).create_topics([wanted])
        assert [error[1] for error in response.topic_errors] == [0]
        await self.wait_until_led(name, partitions)
        return name

    async def wait_until_led(self, topic: str, partitions: int) -> None:
        """Apache Kafka answers a creation before every partition takes requests."""
        if self._prober is None:
            self._prober = await self.consumer()
        places = [TopicPartition(topic, index) for index in range(partitions)]
        async with asyncio.timeout(DEADLINE_S):
            await self._prober.end_offsets(places)

    async def producer(self, **options: Any) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(bootstrap_servers=self.address, **options)
        self._stack.push_async_callback(producer.stop)
        await producer.start()
        return producer

    async def send(self, topic: str, *values: bytes, partition: int = 0, **options: Any) -> list[Any]:
        producer = await self.producer(**options)
        sent = [await producer.send(topic, value, partition=partition) for value in values]
        return await asyncio.gather(*sent)

    async def consumer(self, *topics: str, **options: Any) -> AIOKafkaConsumer:
        settings = {
            "auto_offset_reset": "earliest",
            "enable_auto_commit": False,
            "group_id": None,
            "heartbeat_interval_ms": 200,
            "session_timeout_ms": 6000,
        }
        consumer = AIOKafkaConsumer(*topics, bootstrap_servers=self.address, **(settings | options))
        self._stack.push_async_callback(consumer.stop)
        await consumer.start()
        return consumer

    async def reader_of(self, topic: str, partition: int = 0) -> AIOKafkaConsumer:
        consumer = await self.consumer()
        consumer.assign([TopicPartition(topic, partition)])
        return consumer


@pytest_asyncio.fixture
async def kafka(broker_address: str) -> AsyncIterator[Kafka]:
    async with AsyncExitStack() as stack:
        yield Kafka(broker_address, stack)


@pytest.fixture
def read() -> Callable[..., Any]:
    """Reads a number of records, failing if they do not come in time."""

    async def read_records(consumer: AIOKafkaConsumer, count: int) -> list[Any]:
        records: list[Any] = []
        async with asyncio.timeout(DEADLINE_S):
            while len(records) < count:
                for found in (await consumer.getmany(timeout_ms=200)).values():
                    records += found
        return records

    return read_records


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Waits until a condition holds, failing if it does not in time."""

    async def wait_until(holds: Callable[[], bool | Awaitable[bool]]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                held = holds()
                if held if isinstance(held, bool) else await held:
                    return
                await asyncio.sleep(POLL_INTERVAL_S)

    return wait_until
