"""A server on a unix socket, and a client of it, for each test."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from libs.rpc.tests.world import Client, World
from tlsy.rpc.server import RpcServer, ServerLimits
from tlsy.tenancy.migrations import ServiceMigrations
from tlsy.testkit.plugin import built_templates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(scope="session")
def service_migrations():
    """A service of these tests' own, without tables but the outbox."""
    nothing = Path(__file__).parent / "nothing"
    return (ServiceMigrations(service="ingestion", package="ingestion", root=nothing),)


@pytest.fixture(scope="session")
def database_templates(postgres_server, service_migrations):
    yield from built_templates(postgres_server, service_migrations)


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="tlsy-rpc-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def world(directory: Path) -> World:
    return World(directory)


@pytest.fixture
def server_limits() -> ServerLimits:
    """Overridden by tests of limits."""
    return ServerLimits()


@pytest.fixture
async def server(world: World, server_limits: ServerLimits) -> AsyncIterator[RpcServer]:
    running = world.server(server_limits)
    await running.start()
    yield running
    await running.stop(0.1)


@pytest.fixture
async def client(world: World, server: RpcServer) -> AsyncIterator[Client]:
    async with grpc.aio.insecure_channel(world.host.listen) as channel:
        yield Client(channel)
