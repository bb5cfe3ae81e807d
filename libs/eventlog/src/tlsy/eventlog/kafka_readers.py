"""The ports that read a log, over aiokafka: a member of a group, and a tail that belongs to none."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import aiokafka
from aiokafka.errors import (
    ConsumerStoppedError,
    CorruptRecordException,
    KafkaError,
    UnsupportedCodecError,
)

from tlsy.eventlog import kafka_doors
from tlsy.eventlog.errors import LogUnavailable
from tlsy.eventlog.kafka import (
    ASK_TIMEOUT_S,
    FAILURES,
    MAX_FETCH_BYTES,
    METADATA_MAX_AGE_MS,
    KafkaInspector,
    stop_consumer,
)
from tlsy.eventlog.kafka_batches import fetch_batches
from tlsy.eventlog.kafka_codecs import limit_batches
from tlsy.eventlog.ports import Received, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from tlsy.runtime.brokers import Brokers

#: What a record's timestamp is where the broker gave it.
_LOG_APPEND_TIME: Final = 1
#: A member that fetches nothing for so long leaves its group for good. Ours fetch nothing while their
#: partitions stand still, for as long as that takes; one that hangs sends no heartbeats either.
_MAY_STAND_STILL_MS: Final = 10 * 365 * 86_400_000
#: The last day that a datetime can hold in every time zone.
_LATEST_MS: Final = 253_402_214_400_000


class _Listener(aiokafka.ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    def __init__(
        self,
        on_assigned: Callable[[Sequence[TopicPartition]], Awaitable[None]],
        on_revoked: Callable[[Sequence[TopicPartition]], Awaitable[None]],
    ) -> None:
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked

    async def on_partitions_revoked(self, revoked: Any) -> None:
        await self._on_revoked([_ours(partition) for partition in revoked])

    async def on_partitions_assigned(self, assigned: Any) -> None:
        await self._on_assigned([_ours(partition) for partition in assigned])


class KafkaGroupReader:
    """See `GroupReader`. Reads from the start where the group has committed nothing."""

    __slots__ = ("_brokers", "_client", "_client_id", "_group", "_session_timeout_s", "_topics", "_written")

    def __init__(
        self,
        brokers: Brokers,
        group: str,
        topics: Sequence[str],
        client_id: str,
        *,
        session_timeout_s: float = 10.0,
    ) -> None:
        self._brokers = brokers
        self._written: tuple[tuple[int, ...], ...] = ()
        self._group = group
        self._topics = tuple(topics)
        self._client_id = client_id
        self._session_timeout_s = session_timeout_s
        self._client: Any = None

    async def start(
        self,
        on_assigned: Callable[[Sequence[TopicPartition]], Awaitable[None]],
        on_revoked: Callable[[Sequence[TopicPartition]], Awaitable[None]],
    ) -> None:
        """See `GroupReader.start`."""
        limit_batches()
        self._written = self._brokers.written()
        self._client = aiokafka.AIOKafkaConsumer(
            **kafka_doors.arguments(self._brokers),
            client_id=self._client_id,
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=int(self._session_timeout_s * 1000),
            heartbeat_interval_ms=int(self._session_timeout_s * 1000 / 10),
            max_poll_interval_ms=_MAY_STAND_STILL_MS,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            max_partition_fetch_bytes=MAX_FETCH_BYTES,
        )
        self._client.subscribe(topics=list(self._topics), listener=_Listener(on_assigned, on_revoked))
        try:
            await kafka_doors.start(self._client, self._brokers)
        except FAILURES as error:
            raise LogUnavailable(f"the group cannot be joined: {error!r}") from error

    async def fetch(self, partition: TopicPartition, *, max_records: int, timeout_s: float) -> list[Received]:
        """See `GroupReader.fetch`."""
        kafka_doors.check_written(self._brokers, self._written)
        theirs = aiokafka.TopicPartition(partition.topic, partition.partition)
        try:
            found = await self._client.getmany(
                theirs, timeout_ms=int(timeout_s * 1000), max_records=max_records
            )
            records = found.get(theirs, ())
        except Exception as error:
            _check_unreadable(error)
            try:
                position = await asyncio.wait_for(self._client.position(theirs), ASK_TIMEOUT_S)
                records = await _read_slowly(self._client, theirs, position)
            except FAILURES as failure:
                raise LogUnavailable(f"fetching failed: {failure!r}") from error
            if not records:
                raise LogUnavailable(f"what cannot be read was not found: {error!r}") from error
        return [_received(record) for record in records]

    async def ends(self, topic: str) -> Mapping[int, int]:
        """See `GroupReader.ends`."""
        return await self._of_each(topic, self._client.end_offsets)

    async def starts(self, topic: str) -> Mapping[int, int]:
        """See `GroupReader.starts`."""
        return await self._of_each(topic, self._client.beginning_offsets)

    async def _of_each(self, topic: str, ask: Callable[[Any], Awaitable[Any]]) -> Mapping[int, int]:
        numbers = self._client.partitions_for_topic(topic)
        if not numbers:
            raise LogUnavailable(f"the partitions of {topic} are not known now")
        theirs = [aiokafka.TopicPartition(topic, number) for number in numbers]
        try:
            found = await asyncio.wait_for(ask(theirs), ASK_TIMEOUT_S)
        except FAILURES as error:
            raise LogUnavailable(f"the offsets of {topic} were not found: {error!r}") from error
        return {partition.partition: offset for partition, offset in found.items()}

    async def oldest(self, partition: TopicPartition) -> int:
        """See `GroupReader.oldest`."""
        theirs = aiokafka.TopicPartition(partition.topic, partition.partition)
        try:
            found = await asyncio.wait_for(self._client.beginning_offsets([theirs]), ASK_TIMEOUT_S)
        except FAILURES as error:
            raise LogUnavailable(f"the start was not found: {error!r}") from error
        return int(found[theirs])

    async def rewind(self, partition: TopicPartition) -> None:
        """See `GroupReader.rewind`."""
        theirs = aiokafka.TopicPartition(partition.topic, partition.partition)
        try:
            await asyncio.wait_for(self._client.seek_to_beginning(theirs), ASK_TIMEOUT_S)
        except FAILURES as error:
            raise LogUnavailable(f"the start was not found: {error!r}") from error

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """See `GroupReader.commit`."""
        theirs = {
            aiokafka.TopicPartition(partition.topic, partition.partition): offset
            for partition, offset in offsets.items()
        }
        try:
            await asyncio.wait_for(self._client.commit(theirs), ASK_TIMEOUT_S)
        except FAILURES as error:
            raise LogUnavailable(f"committing failed: {error!r}") from error

    async def committed(self, partition: TopicPartition) -> int | None:
        """See `GroupReader.committed`."""
        theirs = aiokafka.TopicPartition(partition.topic, partition.partition)
        try:
            found = await asyncio.wait_for(self._client.committed(theirs), ASK_TIMEOUT_S)
        except FAILURES as error:
            raise LogUnavailable(f"the committed offset is unknown: {error!r}") from error
        return None if found is None else int(found)

    async def lag(self) -> Mapping[TopicPartition, int]:
        """See `GroupReader.lag`."""
        lags: dict[TopicPartition, int] = {}
        with contextlib.suppress(*FAILURES):
            partitions = list(self._client.assignment())
            # Not the high-water marks of fetches: nobody fetches from a partition that is stopped.
            async with asyncio.timeout(ASK_TIMEOUT_S):
                ends = await self._client.end_offsets(partitions) if partitions else {}
                for partition, end in ends.items():
                    lags[_ours(partition)] = max(0, end - await self._client.position(partition))
        return lags

    async def stop(self) -> None:
        """See `GroupReader.stop`."""
        if self._client is not None:
            await stop_consumer(self._client)


class KafkaTail:
    """See `Tail`. Topics in `since` are read from that time on, and not from their end."""

    __slots__ = (
        "_brokers",
        "_client",
        "_client_id",
        "_cluster_id",
        "_inspector",
        "_positions",
        "_since",
        "_topics",
        "_written",
    )

    def __init__(
        self,
        brokers: Brokers,
        topics: Sequence[str],
        client_id: str,
        *,
        since: Mapping[str, datetime] | None = None,
    ) -> None:
        self._brokers = brokers
        self._written: tuple[tuple[int, ...], ...] = ()
        self._since = since or {}
        self._topics = tuple(topics)
        self._client_id = client_id
        self._inspector = KafkaInspector(brokers, client_id)
        self._client: Any = None
        self._cluster_id = ""
        self._positions: dict[tuple[str, int], int] = {}

    async def open(self) -> None:
        """See `Tail.open`."""
        limit_batches()
        self._cluster_id = await self._inspector.cluster_id()
        for topic in self._topics:
            ends = await self._inspector.end_offsets(topic)
            if not ends:
                raise LogUnavailable(f"there is no topic {topic} yet")
            self._positions.update({(topic, partition): offset for partition, offset in ends.items()})
        self._written = self._brokers.written()
        self._client = aiokafka.AIOKafkaConsumer(
            **kafka_doors.arguments(self._brokers),
            client_id=self._client_id,
            group_id=None,
            auto_offset_reset="earliest",
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
        )
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                await kafka_doors.start(self._client, self._brokers)
            self._client.assign([aiokafka.TopicPartition(*partition) for partition in self._positions])
            async with asyncio.timeout(ASK_TIMEOUT_S):
                await self._go_back()
            for partition, offset in self._positions.items():
                self._client.seek(aiokafka.TopicPartition(*partition), offset)
        except FAILURES as error:
            raise LogUnavailable(f"the tail cannot be opened: {error!r}") from error

    async def _go_back(self) -> None:
        asked = {
            aiokafka.TopicPartition(topic, partition): int(self._since[topic].timestamp() * 1000)
            for topic, partition in self._positions
            if topic in self._since
        }
        if asked:
            for partition, found in (await self._client.offsets_for_times(asked)).items():
                if found is not None:
                    self._positions[partition.topic, partition.partition] = found.offset

    async def fetch(self, *, max_records: int, timeout_s: float) -> list[Received]:
        """See `Tail.fetch`."""
        kafka_doors.check_written(self._brokers, self._written)
        try:
            found = await self._client.getmany(timeout_ms=int(timeout_s * 1000), max_records=max_records)
        except Exception as error:  # noqa: BLE001 - see there
            _check_unreadable(error)
            try:
                found = {
                    partition: await _read_slowly(self._client, aiokafka.TopicPartition(*partition), offset)
                    for partition, offset in self._positions.items()
                }
            except FAILURES as failure:
                raise LogUnavailable(f"fetching failed: {failure!r}") from error
        received = [_received(record) for records in found.values() for record in records]
        for record in received:
            self._positions[record.topic, record.partition] = record.offset + 1
        return received

    async def lost(self) -> bool:
        """See `Tail.lost`; also when a topic got more partitions."""
        if await self._inspector.cluster_id() != self._cluster_id:
            return True
        for topic in self._topics:
            ends = await self._inspector.end_offsets(topic)
            known = {partition: at for (name, partition), at in self._positions.items() if name == topic}
            if ends.keys() != known.keys() or any(ends[partition] < at for partition, at in known.items()):
                return True
        return False

    async def close(self) -> None:
        """See `Tail.close`."""
        try:
            await self._inspector.stop()
        finally:
            if self._client is not None:
                await stop_consumer(self._client)


def _check_unreadable(error: Exception) -> None:
    """Raises LogUnavailable if it is not about records; what reading one may raise is what codecs may."""
    of_log = isinstance(error, KafkaError | ConsumerStoppedError)
    if of_log and not isinstance(error, CorruptRecordException | UnsupportedCodecError):
        raise LogUnavailable(f"fetching failed: {error!r}") from error


async def _read_slowly(client: Any, partition: Any, offset: int) -> Sequence[Any]:
    """What aiokafka fails at; it goes on behind that."""
    records, following = await fetch_batches(
        client._client,  # noqa: SLF001 - aiokafka has no public way to the bytes of a batch
        partition,
        offset,
        max_bytes=MAX_FETCH_BYTES,
        timeout_s=ASK_TIMEOUT_S,
    )
    client.seek(partition, following)
    return records


def _ours(partition: Any) -> TopicPartition:
    return TopicPartition(topic=partition.topic, partition=partition.partition)


def _received(record: Any) -> Received:
    return Received(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        # Whoever wrote the record may have set it to anything.
        time=datetime.fromtimestamp(min(max(record.timestamp, 0), _LATEST_MS) / 1000, UTC),
        key=record.key,
        value=record.value or b"",
        time_of_broker=record.timestamp_type == _LOG_APPEND_TIME,
        # Kafka lets a header have no value; ours are bytes.
        headers=tuple((name, value or b"") for name, value in record.headers),
    )
