"""A line that was cut far away says nothing to either end: only pings tell."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from contextlib import ExitStack, closing
from dataclasses import replace

import grpc
import pytest

from libs.rpc.tests.world import SERVICES
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as ingestion
from tlsy.contracts.ingestion.v1 import ingestion_pb2_grpc
from tlsy.rpc.channel import CallPolicy, dial_bearer
from tlsy.rpc.keep_alive import KeepAlive
from tlsy.rpc.server import ServerLimits
from tlsy.testkit.listening import carry_both_ways, listening

TAIL = ingestion.TailEventsRequest(parent="tenants/acme")
OURS = KeepAlive()
#: What both ends have where nobody says otherwise, made 25 times as fast; a busy machine has time to answer.
SHORT = KeepAlive(every_s=OURS.every_s / 25, timeout_s=4.0, least_s=OURS.least_s / 25)
NEVER = replace(SHORT, every_s=3600)
_PREFACE_BYTES, _HEAD_BYTES, _PING, _ACK = 24, 9, 6, 1


class Line:
    """Between a client and a server; can be cut so that neither is told."""

    def __init__(self) -> None:
        self.cut = False
        self.pings = 0
        self._pinged = threading.Condition()
        self._open = ExitStack()

    def open(self, port: int) -> str:
        def serve(client):
            with socket.create_connection(("127.0.0.1", port)) as server:
                carry_both_ways(client, server, forth=self._carry_and_count, back=self._carry)

        return f"127.0.0.1:{self._open.enter_context(listening(serve))}"

    def close(self) -> None:
        self._open.close()

    def _carry(self, source, sink):
        while data := source.recv(65_536):
            self._pass_on(data, sink)

    def _carry_and_count(self, source, sink):
        left, skip = b"", _PREFACE_BYTES
        while data := source.recv(65_536):
            self._pass_on(data, sink)
            left, skip = self._count(left + data, skip)

    def _pass_on(self, data, sink):
        if not self.cut:
            sink.sendall(data)

    def _count(self, data, skip):
        """Count the pings in some frames; answers what is not whole yet, and how much to pass over."""
        if len(data) < skip:
            return data, skip
        data = data[skip:]
        while len(data) >= _HEAD_BYTES and len(data) >= (
            size := _HEAD_BYTES + int.from_bytes(data[:3], "big")
        ):
            with self._pinged:
                self.pings += data[3] == _PING and not data[4] & _ACK
                self._pinged.notify_all()
            data = data[size:]
        return data, 0

    async def has_pings(self, count: int) -> None:
        def wait() -> bool:
            with self._pinged:
                return self._pinged.wait_for(lambda: self.pings >= count, 20)

        assert await asyncio.to_thread(wait)


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
def line():
    with closing(Line()) as made:
        yield made


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
            line.open(running.port),
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
    async with asyncio.timeout(60):
        await world.ingestion.act.left.wait()


async def test_a_client_lets_go_of_a_server_that_vanished_however_long_it_was_silent(world, line, tail):
    stream = await tail(server=NEVER, client=SHORT)
    await line.has_pings(4)
    line.cut = True
    async with asyncio.timeout(60):
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
    async with asyncio.timeout(60):
        with pytest.raises(grpc.aio.AioRpcError, match="Too many pings"):
            await stream.read()
