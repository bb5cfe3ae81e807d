from __future__ import annotations

import asyncio
import os
import socket
import threading
from contextlib import ExitStack
from dataclasses import replace

import grpc
import pytest

from libs.rpc.tests.test_a_renewed_certificate_is_shown import SPOILED, Mounted, copy
from libs.rpc.tests.world import SERVICES, Identity, World
from tlsy.contracts.identity.v1 import identity_pb2 as identity
from tlsy.contracts.identity.v1 import identity_pb2_grpc
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as ingestion
from tlsy.contracts.ingestion.v1 import ingestion_pb2_grpc
from tlsy.rpc.channel import CallPolicy, dial_bearer
from tlsy.testkit.certificates import Authority
from tlsy.testkit.listening import carry_both_ways, listening

POLICY = CallPolicy(timeout_s=20, attempts=1)


class Seeing(Identity):
    """Notes whose certificate each call came with."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    async def LogIn(self, request, context):  # noqa: N802  the proto's
        self.names += [name.decode() for name in context.auth_context()["x509_common_name"]]
        return await super().LogIn(request, context)


class Line:
    """Carries connections to a server, and counts those that are open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._counting = threading.Condition()
        self.open = 0

    def __call__(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as server:
            self._count(1)
            carry_both_ways(client, server, forth=_pass_on, back=_pass_on)
        self._count(-1)

    def _count(self, more: int) -> None:
        with self._counting:
            self.open += more
            self._counting.notify_all()

    async def has_open(self, count: int) -> bool:
        def wait() -> bool:
            with self._counting:
                return self._counting.wait_for(lambda: self.open == count, 20)

        return await asyncio.to_thread(wait)


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    while data := source.recv(65_536):
        sink.sendall(data)


@pytest.fixture
def authority(directory) -> Authority:
    return Authority(directory, "ours")


@pytest.fixture
def mounted(directory, authority) -> Mounted:
    made = Mounted(directory)
    made.switch("first", authority.issue("first"))
    return made


@pytest.fixture
def served(directory, authority) -> Mounted:
    (directory / "server").mkdir()
    made = Mounted(directory / "server")
    made.switch("first", authority.issue("server"))
    return made


@pytest.fixture
async def world(directory, served):
    world = World(directory, identity=Seeing())  # type: ignore[abstract]  # what is called is there
    world.host = replace(world.host, listen="127.0.0.1:0", tls=served.files)
    return world


@pytest.fixture
async def line(world):
    server = world.server()
    await server.start()
    yield Line(server.port)
    await server.stop(0)


@pytest.fixture
async def dialled(world, line, mounted):
    """Channels of one process, over the line."""
    with ExitStack() as ends:
        target = f"127.0.0.1:{ends.enter_context(listening(line))}"
        channels = []

        def dial(service="identity"):
            async def bearer():
                return world.token("client-admin")

            channels.append(
                dial_bearer(
                    target,
                    SERVICES[service][0],
                    bearer,
                    clock=world.clock,
                    random=os.urandom,
                    tls=mounted.files,
                    policy=POLICY,
                    known_as="localhost",
                )
            )
            return channels[-1]

        yield dial
        for channel in channels:
            await channel.close()


LOG_IN = identity.LogInRequest(tenant="acme", email="a@example.org", password="something long")


async def test_a_secret_that_is_switched_is_shown_by_the_next_call(
    world, dialled, authority, mounted, log_lines
):
    stub = identity_pb2_grpc.IdentityServiceStub(dialled())
    for version in ("second", "third"):
        await stub.LogIn(LOG_IN)
        await stub.LogIn(LOG_IN)
        mounted.switch(version, authority.issue(version))
    await stub.LogIn(LOG_IN)
    assert world.identity.names == ["first", "first", "second", "second", "third"]
    assert [line["event"] for line in log_lines].count("certificate renewed") == 2


async def test_calls_that_were_begun_end_on_their_connection_which_is_closed_then(
    world, dialled, authority, mounted, line
):
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def act():
        begun.set()
        await go_on.wait()

    stub = identity_pb2_grpc.IdentityServiceStub(dialled())
    world.identity.act = act
    early = asyncio.ensure_future(stub.LogIn(LOG_IN))
    await begun.wait()
    world.identity.act = None
    mounted.switch("second", authority.issue("second"))
    await stub.LogIn(LOG_IN)
    assert await line.has_open(2)
    go_on.set()
    assert await early == identity.LogInResponse()
    assert await line.has_open(1)
    assert world.identity.names == ["first", "second"]


async def test_a_stream_is_read_on_after_the_switch(world, dialled, authority, mounted, line):
    go_on = asyncio.Event()
    world.ingestion.act = go_on.wait
    stub = ingestion_pb2_grpc.IngestionServiceStub(dialled("ingestion"))
    stream = aiter(stub.TailEvents(ingestion.TailEventsRequest(parent="tenants/acme")))
    assert (await anext(stream)).missed == 1
    mounted.switch("second", authority.issue("second"))
    other = stub.TailEvents(ingestion.TailEventsRequest(parent="tenants/acme"))
    assert (await anext(aiter(other))).missed == 1
    assert await line.has_open(2)
    go_on.set()
    assert [each.missed async for each in stream] == [2]
    assert [each.missed async for each in other] == [2]
    assert await line.has_open(1)


async def test_a_renewed_authority_is_trusted_by_the_next_call(world, directory, dialled, mounted, served):
    stub = identity_pb2_grpc.IdentityServiceStub(dialled())
    await stub.LogIn(LOG_IN)
    theirs = Authority(directory, "theirs")
    served.switch("second", theirs.issue("their-server"))
    mounted.switch("second", theirs.issue("second"))
    await stub.LogIn(LOG_IN)
    assert world.identity.names == ["first", "second"]


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
async def test_files_that_are_not_whole_change_nothing_and_are_told_once(
    world, dialled, authority, mounted, spoil, log_lines
):
    stub = identity_pb2_grpc.IdentityServiceStub(dialled())
    issued = authority.issue("second")
    spoil(mounted.files, issued)
    for _ in range(3):
        await stub.LogIn(LOG_IN)
    assert [line["event"] for line in log_lines if line["level"] == "error"] == ["certificate not renewed"]
    copy(issued, mounted.files)
    await stub.LogIn(LOG_IN)
    assert world.identity.names == ["first"] * 3 + ["second"]


async def test_files_that_do_not_fit_each_other_open_no_channel(dialled, authority, mounted):
    mounted.files.key_file.write_bytes(authority.issue("second").key_file.read_bytes())
    with pytest.raises(ValueError, match="another certificate"):
        dialled()


async def test_a_channel_that_was_renewed_closes_whole(dialled, authority, mounted, line, world):
    begun = asyncio.Event()

    async def act():
        begun.set()
        await asyncio.Event().wait()

    channel = dialled()
    stub = identity_pb2_grpc.IdentityServiceStub(channel)
    world.identity.act = act
    early = stub.LogIn(LOG_IN)
    await begun.wait()
    world.identity.act = None
    mounted.switch("second", authority.issue("second"))
    await stub.LogIn(LOG_IN)
    assert await line.has_open(2)
    await channel.close()
    assert await early.code() is grpc.StatusCode.CANCELLED
    assert await line.has_open(0)
