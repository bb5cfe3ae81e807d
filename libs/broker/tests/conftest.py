from __future__ import annotations

import asyncio
import io
import struct
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import pytest
from kio.index import load_response_from_request
from kio.records.schema import NewRecordBatch, Record
from kio.records.writers import write_batch
from kio.schema.fetch.v11.request import FetchPartition, FetchRequest, FetchTopic
from kio.schema.join_group.v3.request import JoinGroupRequest, JoinGroupRequestProtocol
from kio.schema.produce.v7.request import PartitionProduceData, ProduceRequest, TopicProduceData
from kio.schema.types import GroupId, TopicName
from kio.serial import entity_reader, entity_writer
from kio.static.primitive import Records, TZAwareMicros, i8, i16, i32, i32Timedelta, i64
from kio.static.protocol import RequestPayload, ResponsePayload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

from tlsy.broker.api import NO_THROTTLE

DEADLINE_S = 30.0

R = TypeVar("R", bound=ResponsePayload)


def encode_request(request: RequestPayload, *, correlation_id: int = 1, client_id: str = "raw") -> bytes:
    body = io.BytesIO()
    header = request.__header_schema__(
        request_api_key=request.__api_key__,
        request_api_version=request.__version__,
        correlation_id=i32(correlation_id),
        client_id=client_id,
    )
    entity_writer(type(header))(body, header)
    entity_writer(type(request))(body, request)
    return struct.pack(">i", len(body.getvalue())) + body.getvalue()


@dataclass
class RawClient:
    """Speaks the protocol itself, so that a test can say what no client library would."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def connect(cls, address: str) -> RawClient:
        host, port = address.split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def ask(self, request: RequestPayload) -> ResponsePayload:
        self.writer.write(encode_request(request))
        async with asyncio.timeout(DEADLINE_S):
            (size,) = struct.unpack(">i", await self.reader.readexactly(4))
            frame = await self.reader.readexactly(size)
        schema = load_response_from_request(request)
        _, header_size = entity_reader(schema.__header_schema__)(frame, 0)
        response, _ = entity_reader(schema)(frame, header_size)
        return response

    async def is_closed_by_broker(self, within_s: float = DEADLINE_S) -> bool:
        try:
            async with asyncio.timeout(within_s):
                return await self.reader.read(1) == b""
        except ConnectionError:
            return True

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


@dataclass
class Connect:
    """Opens raw clients that the test need not close."""

    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __call__(self, address: str) -> RawClient:
        client = await RawClient.connect(address)
        self.stack.push_async_callback(client.close)
        return client


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[str], Awaitable[RawClient]]]:
    opener = Connect()
    async with opener.stack:
        yield opener


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    return encode_request


@pytest.fixture
def batch() -> Callable[..., bytes]:
    """Builds the bytes of a record batch; times are in whole seconds since 1970."""

    def build(
        *values: bytes,
        producer_id: int = -1,
        epoch: int = -1,
        sequence: int = -1,
        times_s: tuple[int, ...] | None = None,
        attributes: int = 0,
    ) -> bytes:
        times_s = times_s or (1_700_000_000,) * len(values)
        buffer = io.BytesIO()
        records = tuple(
            Record(
                attributes=i8(0),
                timestamp=TZAwareMicros.parse(datetime.fromtimestamp(time_s, UTC)),
                offset=i64(offset),
                key=None,
                value=value,
                headers=(),
            )
            for offset, (value, time_s) in enumerate(zip(values, times_s, strict=True))
        )
        write_batch(
            buffer,
            NewRecordBatch(
                producer_id=i64(producer_id),
                producer_epoch=i16(epoch),
                base_sequence=i32(sequence),
                records=records,
                attributes=i16(attributes),
            ),
        )
        return buffer.getvalue()

    return build


@pytest.fixture
def produce_request() -> Callable[..., RequestPayload]:
    def build(topic: str, records: bytes, *, acks: int = -1, partition: int = 0) -> ProduceRequest:
        data = PartitionProduceData(index=i32(partition), records=Records.parse(records))
        return ProduceRequest(
            acks=i16(acks),
            timeout=NO_THROTTLE,
            topic_data=(TopicProduceData(name=TopicName.parse(topic), partition_data=(data,)),),
        )

    return build


@pytest.fixture
def long_poll() -> Callable[..., FetchRequest]:
    def build(topic: str, *, max_wait_s: float) -> FetchRequest:
        partition = FetchPartition(partition=i32(0), fetch_offset=i64(0), partition_max_bytes=i32(1_000_000))
        return FetchRequest(
            max_wait=i32Timedelta.parse(timedelta(seconds=max_wait_s)),
            min_bytes=i32(1),
            topics=(FetchTopic(topic=TopicName.parse(topic), partitions=(partition,)),),
            forgotten_topics_data=(),
        )

    return build


@pytest.fixture
def join_request() -> Callable[..., JoinGroupRequest]:
    """Asks to join at once: this version is not told its member id first."""

    def build(group: str, *, timeout_s: float) -> JoinGroupRequest:
        timeout = i32Timedelta.parse(timedelta(seconds=timeout_s))
        return JoinGroupRequest(
            group_id=GroupId.parse(group),
            session_timeout=timeout,
            rebalance_timeout=timeout,
            member_id="",
            protocol_type="consumer",
            protocols=(JoinGroupRequestProtocol(name="range", metadata=b""),),
        )

    return build
