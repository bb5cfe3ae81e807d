"""A line that was cut far away says nothing to either end: only pings tell."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Any

import grpc
import pytest

from libs.rpc.tests.world import SERVICES
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as ingestion
from tlsy.contracts.ingestion.v1 import ingestion_pb2_grpc
from tlsy.rpc.channel import CallPolicy, dial_bearer
from tlsy.rpc.keep_alive import KeepAlive
from tlsy.rpc.server import ServerLimits

TAIL = ingestion.TailEventsRequest(parent="tenants/acme")
OURS = KeepAlive()
#: What both ends have where nobody says otherwise, made 25 times as fast.
SHORT = KeepAlive(every_s=OURS.every_s / 25, timeout_s=OURS.timeout_s / 25, least_s=OURS.least_s / 25)
NEVER = replace(SHORT, every_s=3600)
_PREFACE_BYTES, _HEAD_BYTES, _PING, _ACK = 24, 9, 6, 1


class Line:
    """Between a client and a server; can be cut so that neither is told."""

    def __init__(self) -> None:
        self.cut = False
        self.pings = 0
        self.pinged = asyncio.Condition()
        self._carrying: list[Any] = []

    async def open(self, port: int) -> str:
        async def serve(reader, writer):
            there, back = await asyncio.open_connection("127.0.0.1", port)
            self._carrying.append((asyncio.current_task(), writer, back))
            await asyncio.gather(self._carry(reader, back, counts=True), self._carry(there, writer))

        self._server = await asyncio.start_server(serve, "127.0.0.1", 0)
        host, open_port = self._server.sockets[0].getsockname()
        return f"{host}:{open_port}"

    async def close(self) -> None:
        self._server.close()
        for task, *writers in self._carrying:
            for writer in writers:
                writer.close()
            await asyncio.wait({task})

    async def _carry(self, reader, writer, *, counts=False):
        left = b"" if counts else None
        skip = _PREFACE_BYTES
        while data := await reader.read(65_536):
            if not self.cut:
                writer.write(data)
            if left is not None:
                left, skip = await self._count(left + data, skip)
        writer.close()

    async def _count(self, data, skip):
        """Count the pings in some frames; answers what is not whole yet."""
        data = data[skip:]
        while len(data) >= _HEAD_BYTES and len(data) >= (
            size := _HEAD_BYTES + int.from_bytes(data[:3], "big")
        ):
            async with self.pinged:
                self.pings += data[3] == _PING and not data[4] & _ACK
                self.pinged.notify_all()
            data = data[size:]
        return data, 0

    async def has_pings(self, count: int) -> None:
        async with asyncio.timeout(20), self.pinged:
            await self.pinged.wait_for(lambda: self.pings >= count)


class Held:
    """A stream that is silent until the test lets it go on."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self) -> None:
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.left.set()
            raise


@pytest.fixture
async def line():
    made = Line()
    yield made
    await made.close()


@pytest.fixture
async def tail(world, line):
    """Opens a stream over the line, and reads its first message."""
    world.ingestion.act = Held()
    world.host = replace(world.host, listen="127.0.0.1:0")
    opened = []

    async def bearer():
        return world.token("viewer")

    async def open_stream(*, server, client):
        running = world.server(ServerLimits(keep_alive=server))
        await running.start()
        channel = dial_bearer(
            await line.open(running.port),
            SERVICES["ingestion"][0],
            bearer,
            clock=world.clock,
            random=os.urandom,
            policy=CallPolicy(keep_alive=client),
        )
        opened.append((channel, running))
        stream = ingestion_pb2_grpc.IngestionServiceStub(channel).TailEvents(TAIL)
        assert await stream.read() == ingestion.TailEventsResponse(missed=1)
        return stream

    yield open_stream
    for channel, running in opened:
        await channel.close()
        await running.stop(0)


async def test_a_server_lets_go_of_a_client_that_vanished(world, line, tail):
    await tail(server=SHORT, client=NEVER)
    line.cut = True
    async with asyncio.timeout(15):
        await world.ingestion.act.left.wait()


async def test_a_client_lets_go_of_a_server_that_vanished_however_long_it_was_silent(world, line, tail):
    stream = await tail(server=NEVER, client=SHORT)
    await line.has_pings(4)
    line.cut = True
    async with asyncio.timeout(15):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stream.read()
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_client_that_waits_in_silence_does_not_ping_too_often(world, line, tail):
    stream = await tail(server=NEVER, client=SHORT)
    await line.has_pings(6)
    world.ingestion.act.go_on.set()
    assert (await stream.read()).missed == 2


async def test_one_that_pings_more_often_than_it_may_is_hung_up_on(world, line, tail):
    stream = await tail(server=replace(NEVER, least_s=60.0), client=SHORT)
    async with asyncio.timeout(15):
        with pytest.raises(grpc.aio.AioRpcError, match="Too many pings"):
            await stream.read()
