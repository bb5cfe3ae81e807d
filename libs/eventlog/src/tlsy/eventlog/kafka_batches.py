"""Reads what aiokafka cannot: batches in which a header's name is no text, or a record is none.

Kafka's brokers check a batch's frame and checksum, not all of its records, and aiokafka gives up a whole
partition for one that it cannot read. Slower than aiokafka's own way, so only for batches that this fails at;
what a batch may cost is limited, since whoever wrote it may want it to be slow.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any, Final

from aiokafka.errors import CorruptRecordException, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import decode_varint_py as decode_varint
from aiokafka.structs import ConsumerRecord

from tlsy.eventlog.kafka_codecs import DECODERS

if TYPE_CHECKING:
    from collections.abc import Iterator

_LENGTH: Final = struct.Struct(">i")
_LENGTH_AT: Final = 8
_LENGTH_END: Final = 12
_MAGIC_AT: Final = 16
_MAGIC: Final = 2
_COUNT_AT: Final = 57
_RECORDS_AT: Final = 61
_LOG_APPEND_TIME: Final = 1
#: Of a batch; some hundred bytes each are a producer's token alone.
_MAX_RECORDS: Final = 20_000


async def fetch_batches(
    client: Any, partition: Any, offset: int, *, max_bytes: int, timeout_s: float
) -> tuple[list[Any], int]:
    """The records from `offset` on, of whole batches, and the offset of the next; none where nothing is.

    What cannot be read of a batch is one record with its last offset, without headers and key, and with the
    batch's bytes for a value. Raises KafkaError, also for a wrong checksum: that is not the writer's doing;
    TimeoutError.

    Args:
        client: an AIOKafkaClient.
        partition: aiokafka's name of it.
        offset: where to begin.
        max_bytes: to be read at once; a first batch that is larger is read all the same.
        timeout_s: for the broker. To read what it sent takes as long as it takes: who begins anew, because
            that was long, never ends.
    """
    wanted = [(partition.topic, [(partition.partition, offset, max_bytes)])]
    node = client.cluster.leader_for_partition(partition)
    async with asyncio.timeout(timeout_s):
        answer = await client.send(node, FetchRequest(0, 1, max_bytes, 0, wanted))
    ((_, ((_, code, *_, raw),)),) = answer.topics
    if code:
        raise for_code(code)(f"fetching from {partition}")
    # It may be megabytes, and compressed.
    return await asyncio.to_thread(_records_of, partition, bytes(raw or b""), offset)


def _records_of(partition: Any, raw: bytes, offset: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    for one in _batches(raw):
        if len(found) >= _MAX_RECORDS:
            break
        batch = DefaultRecordBatch(bytearray(one))
        if not batch.validate_crc():
            raise CorruptRecordException(f"a batch of {partition} has a wrong checksum")
        if batch.next_offset > offset:
            if not batch.is_control_batch:
                found += [record for record in _read(partition, batch, one) if record.offset >= offset]
            offset = batch.next_offset
    return found, offset


def _batches(raw: bytes) -> Iterator[bytes]:
    """The whole ones; the last may be cut."""
    at = 0
    while len(raw) >= at + _LENGTH_END:
        end = at + _LENGTH_END + _LENGTH.unpack_from(raw, at + _LENGTH_AT)[0]
        if end > len(raw) or raw[at + _MAGIC_AT] != _MAGIC:
            return
        yield raw[at:end]
        at = end


def _read(partition: Any, batch: Any, raw: bytes) -> Iterator[Any]:
    try:
        yield from _records(partition, batch, raw)
    except Exception:  # noqa: BLE001 - whatever it is, whoever wrote the batch has done it
        yield _made(partition, batch, batch.next_offset - 1, batch.max_timestamp, value=raw)


def _records(partition: Any, batch: Any, raw: bytes) -> Iterator[Any]:
    (count,) = _LENGTH.unpack_from(raw, _COUNT_AT)
    if count > _MAX_RECORDS:
        raise CorruptRecordException(f"a batch has more than {_MAX_RECORDS} records")
    body = DECODERS[batch.compression_type](raw[_RECORDS_AT:])
    before, at = batch.base_offset - 1, 0
    for following in reversed(range(count)):
        size, at = decode_varint(body, at)
        record = _record(partition, batch, body[at : at + size])
        # An offset is left for each that follows, and so for what cannot be read of them.
        if not before < record.offset < batch.next_offset - following:
            raise CorruptRecordException("a record is not where it says")
        yield record
        before, at = record.offset, at + size


def _record(partition: Any, batch: Any, body: bytes) -> Any:
    # Not aiokafka's fast one, which reads on behind the end.
    time_delta, at = decode_varint(body, 1)
    offset_delta, at = decode_varint(body, at)
    key, at = _bytes(body, at)
    value, at = _bytes(body, at)
    count, at = decode_varint(body, at)
    headers = []
    for _ in range(count):
        name, at = _bytes(body, at)
        content, at = _bytes(body, at)
        headers.append(((name or b"").decode(errors="backslashreplace"), content))
    if at != len(body):
        raise CorruptRecordException("a record is not as long as it says")
    of_broker = batch.timestamp_type == _LOG_APPEND_TIME
    time_ms = batch.max_timestamp if of_broker else batch.first_timestamp + time_delta
    offset = batch.base_offset + offset_delta
    return _made(partition, batch, offset, time_ms, key=key, value=value, headers=tuple(headers))


def _bytes(body: bytes, at: int) -> tuple[bytes | None, int]:
    size, at = decode_varint(body, at)
    if size < 0:
        return None, at
    return body[at : at + size], at + size


def _made(
    partition: Any,
    batch: Any,
    offset: int,
    time_ms: int,
    *,
    key: bytes | None = None,
    value: bytes | None = None,
    headers: tuple[tuple[str, bytes | None], ...] = (),
) -> Any:
    return ConsumerRecord(
        topic=partition.topic,
        partition=partition.partition,
        offset=offset,
        timestamp=time_ms,
        timestamp_type=batch.timestamp_type,
        key=key,
        value=value,
        checksum=None,
        serialized_key_size=len(key or b""),
        serialized_value_size=len(value or b""),
        headers=headers,
    )
