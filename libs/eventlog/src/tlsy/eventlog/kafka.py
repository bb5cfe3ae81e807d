"""The ports over aiokafka. A client that failed is dropped and made anew: nothing heals by itself.

aiokafka gives a record up when it could not be sent for `request_timeout_ms`, and goes on with the next one
of the same partition. That would turn the order round, so the producer's own deadline is always shorter, and
at its end the whole client is thrown away with all that it still held.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import (
    ConsumerStoppedError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAlreadyExistsError,
    for_code,
)
from aiokafka.partitioner import murmur2

from tlsy.eventlog import kafka_doors
from tlsy.eventlog.errors import LogUnavailable, RecordTooLarge
from tlsy.eventlog.letter_box import LetterBox
from tlsy.eventlog.ports import Position

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import datetime

    from tlsy.eventlog.ports import Record
    from tlsy.runtime.brokers import Brokers

_T = TypeVar("_T")

_REQUEST_TIMEOUT_MS: Final = 30_000
ASK_TIMEOUT_S: Final = 5.0
CLOSE_TIMEOUT_S: Final = 2.0
METADATA_MAX_AGE_MS: Final = 5_000
#: Kafka's own limit per batch is 1 MiB and some bytes; one record is at most 512 KiB and its headers.
_MAX_BATCH_BYTES: Final = 900_000
MAX_FETCH_BYTES: Final = 4_194_304
#: The broker's own time: retention counts from when a record came, also when it is published again, and no
#: producer can say otherwise. And Kafka's own limit per batch, should the broker have a lower one: an outbox
#: row that it does not take would hold up whatever follows.
_TOPIC_CONFIGS: Final[Mapping[str, str]] = MappingProxyType(
    {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "1048588"}
)
#: `default.replication.factor`: only who runs the brokers knows how many there are.
_AS_THE_BROKER_SAYS: Final = -1
FAILURES: Final = (
    KafkaError,
    ConsumerStoppedError,
    OSError,
    TimeoutError,
    AssertionError,
    AttributeError,
    IndexError,
)
_TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)


def partition_of(key: bytes, count: int) -> int:
    """Which of a topic's `count` partitions the producer puts the records of a key into."""
    return int(murmur2(key) & 0x7FFFFFFF) % count


class KafkaProducer:
    """See `Producer`. Idempotent, acknowledged by all in-sync replicas; many may publish at the same time."""

    __slots__ = ("_brokers", "_client", "_client_id", "_connecting")

    def __init__(self, brokers: Brokers, client_id: str) -> None:
        self._brokers = brokers
        self._client_id = client_id
        self._client: Any = None
        self._connecting = asyncio.Lock()

    async def publish(self, records: Sequence[Record], *, timeout_s: float) -> list[Position | None]:
        """See `Producer.publish`; `timeout_s` must be below 30 s."""
        futures: list[asyncio.Future[Any]] = []
        client: Any = None
        failed = False
        try:
            async with asyncio.timeout(timeout_s):
                client = await self._connected()
                for record in records:
                    future = await client.send(
                        record.topic,
                        value=record.value,
                        key=record.key,
                        timestamp_ms=int(record.time.timestamp() * 1000),
                        headers=list(record.headers),
                    )
                    futures.append(future)
                await asyncio.wait(futures)
        except FAILURES as error:
            failed = True
            if not futures:
                await self._discard(client)
                if isinstance(error, _TOO_LARGE):
                    raise RecordTooLarge(repr(error), [None] * len(records)) from error
                raise LogUnavailable(f"nothing was sent: {kafka_doors.told(error)}") from error
        if failed or any(not future.done() or future.exception() for future in futures):
            await self._discard(client)
        positions = _positions(records, futures)
        if any(_refused_for_size(future) for future in futures):
            text = f"{records[0].topic} takes less than it must: set its max.message.bytes to 1048588"
            raise RecordTooLarge(text, positions)
        return positions

    async def stop(self) -> None:
        """Close the connection; whoever publishes has returned before."""
        client, self._client = self._client, None
        if client is not None:
            try:
                await _bounded(client.stop())
            finally:
                # It waits for what nobody takes first, and aiokafka stops only once.
                await _throw_away(client)

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._client is None:
                client = aiokafka.AIOKafkaProducer(
                    **kafka_doors.arguments(self._brokers),
                    client_id=self._client_id,
                    enable_idempotence=True,
                    acks="all",
                    max_batch_size=_MAX_BATCH_BYTES,
                    max_request_size=MAX_FETCH_BYTES,
                    request_timeout_ms=_REQUEST_TIMEOUT_MS,
                    metadata_max_age_ms=METADATA_MAX_AGE_MS,
                )
                try:
                    await kafka_doors.start(client, self._brokers)
                except BaseException:
                    await _throw_away(client)
                    raise
                _end_at_refusal(client)
                self._client = client
            return self._client

    async def _discard(self, client: Any) -> None:
        if client is None:
            return
        if self._client is client:
            self._client = None
        await _throw_away(client)


def _end_at_refusal(client: Any) -> None:
    """Have a producer send nothing any more once a batch is refused, since what follows would overtake it.

    What is on its way is still answered; the rest fails. aiokafka has no setting for it.
    """
    sender = client._sender  # noqa: SLF001 - see above
    send = sender._send_produce_req  # noqa: SLF001 - see above

    async def send_or_end(node: Any, batches: Mapping[Any, Any]) -> None:
        await send(node, batches)
        if any(batch.future.done() and batch.future.exception() for batch in batches.values()):
            sender.sender_task.cancel()

    sender._send_produce_req = send_or_end  # noqa: SLF001 - see above
    sender.sender_task.add_done_callback(lambda _: _fail_all(client))


def _fail_all(client: Any) -> None:
    accumulator = client._message_accumulator  # noqa: SLF001 - see above
    accumulator.fail_all(KafkaError("the producer was thrown away"))
    for batches in accumulator._batches.values():  # noqa: SLF001 - see above
        for batch in batches:
            # Whoever waits for room in it, or for its records, is told; else it is logged that nobody was.
            records = (future for future, _ in batch._msg_futures)  # noqa: SLF001 - see above
            for told in (batch._drain_waiter, *records):  # noqa: SLF001 - see above
                if not told.cancelled():
                    told.exception()


async def _throw_away(client: Any) -> None:
    """End a producer without flushing it, which aiokafka has no public way for."""
    _fail_all(client)
    task = client._sender.sender_task  # noqa: SLF001 - see above
    if task is not None:
        task.cancel()
    try:
        await _bounded(client.client.close())
    finally:
        await _bounded(client.stop())
        await _bounded(client._sender.close())  # noqa: SLF001 - see above


def _refused_for_size(future: asyncio.Future[Any]) -> bool:
    return future.done() and not future.cancelled() and isinstance(future.exception(), _TOO_LARGE)


def _positions(records: Sequence[Record], futures: Sequence[asyncio.Future[Any]]) -> list[Position | None]:
    broken: set[bytes] = set()
    positions: list[Position | None] = []
    for index, record in enumerate(records):
        future = futures[index] if index < len(futures) else None
        sent = future is not None and future.done() and not future.cancelled() and future.exception() is None
        if future is None or not sent or record.key in broken:
            broken.add(record.key)
            positions.append(None)
        else:
            metadata = future.result()
            positions.append(Position(metadata.partition, metadata.offset))
    return positions


class KafkaInspector:
    """See `LogInspector`; also makes topics."""

    __slots__ = ("_admin", "_brokers", "_client_id", "_consumer", "_lock")

    def __init__(self, brokers: Brokers, client_id: str) -> None:
        self._brokers = brokers
        self._client_id = client_id
        self._admin: Any = None
        self._consumer: Any = None
        self._lock = asyncio.Lock()

    async def cluster_id(self) -> str:
        """See `LogInspector.cluster_id`."""

        async def ask() -> Any:
            # Asked with each batch that is published. `describe_cluster` asks for every partition there is.
            return await self._admin._get_cluster_metadata(topics=[])  # noqa: SLF001 - see above

        described = await self._ask(ask)
        return str(described.cluster_id)

    async def end_offsets(self, topic: str) -> Mapping[int, int]:
        """See `LogInspector.end_offsets`; empty when there is no such topic."""

        async def ask() -> dict[int, int]:
            (described,) = await self._admin.describe_topics([topic])
            partitions = [
                aiokafka.TopicPartition(topic, found["partition"]) for found in described["partitions"]
            ]
            if not partitions:
                return {}
            ends = await self._consumer.end_offsets(partitions)
            return {partition.partition: offset for partition, offset in ends.items()}

        return await self._ask(ask)

    async def letters(self, topic: str, group: str) -> tuple[int, datetime | None]:
        """See `LogInspector.letters`."""
        async with LetterBox.opened(self._brokers, topic, group) as box:
            return await box.backlog()

    async def ensure_topics(self, partitions: Mapping[str, int]) -> None:
        """See `LogInspector.ensure_topics`."""

        async def make() -> None:
            wanted = [
                NewTopic(
                    name=name,
                    num_partitions=count,
                    replication_factor=_AS_THE_BROKER_SAYS,
                    # aiokafka takes the -1 beside assignments only; of none there may be.
                    replica_assignments={},
                    topic_configs=_TOPIC_CONFIGS,
                )
                for name, count in partitions.items()
            ]
            answer = await self._admin.create_topics(wanted)
            for error in answer.topic_errors:
                kind = for_code(error[1])
                if error[1] and kind is not TopicAlreadyExistsError:
                    raise kind(f"topic {error[0]}")

        await self._ask(make)

    async def stop(self) -> None:
        """Close the connections."""
        async with self._lock:
            await self._drop()

    async def _ask(self, question: Callable[[], Awaitable[_T]]) -> _T:
        async with self._lock:
            try:
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    await self._connect()
                    return await question()
            except FAILURES as error:
                await self._drop()
                raise LogUnavailable(f"the broker did not answer: {error!r}") from error
            except BaseException:
                await self._drop()
                raise

    async def _connect(self) -> None:
        if self._admin is None:
            self._admin = AIOKafkaAdminClient(
                **kafka_doors.arguments(self._brokers), client_id=self._client_id
            )
            await kafka_doors.start(self._admin, self._brokers)
        if self._consumer is None:
            self._consumer = aiokafka.AIOKafkaConsumer(
                **kafka_doors.arguments(self._brokers), client_id=self._client_id, group_id=None
            )
            await kafka_doors.start(self._consumer, self._brokers)

    async def _drop(self) -> None:
        admin, self._admin = self._admin, None
        consumer, self._consumer = self._consumer, None
        try:
            if admin is not None:
                await _bounded(admin.close())
        finally:
            if consumer is not None:
                await stop_consumer(consumer)


async def stop_consumer(client: Any) -> None:
    """Stop a client, within a bound, whatever it says."""
    try:
        await _bounded(client.stop())
    finally:
        # What that had not come to: it waits for the group first, and aiokafka stops only once.
        coordinator, fetcher = client._coordinator, client._fetcher  # noqa: SLF001 - see above
        if isinstance(coordinator, GroupCoordinator):
            await _bounded(coordinator._stop_heartbeat_task())  # noqa: SLF001 - see above
            await _bounded(coordinator._stop_commit_offsets_refresh_task())  # noqa: SLF001 - see above
        if fetcher is not None:
            await _bounded(fetcher.close())
        await _bounded(client._client.close())  # noqa: SLF001 - see above


async def _bounded(step: Awaitable[None]) -> None:
    with contextlib.suppress(*FAILURES):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            try:
                await step
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Not we are: its own fetch is, that waited for a broker to come back, or its sender.
