"""A server on a unix socket, and a client of it, for each test."""

from __future__ import annotations

import io
import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog

from libs.rpc.tests.world import Client, World
from tlsy.rpc.server import RpcServer, ServerLimits
from tlsy.runtime.logging import configure_logging
from tlsy.tenancy.migrations import ServiceMigrations
from tlsy.testkit.plugin import built_templates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class LogLines:
    """What was logged since the test began, parsed."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter([json.loads(line) for line in self.stream.getvalue().splitlines()])


@pytest.fixture(scope="session")
def service_migrations():
    """A service of these tests' own, without tables but the outbox."""
    nothing = Path(__file__).parent / "nothing"
    return (ServiceMigrations(service="ingestion", package="ingestion", root=nothing),)


@pytest.fixture(scope="session")
def database_templates(postgres_server, service_migrations):
    yield from built_templates(postgres_server, service_migrations)


@pytest.fixture
def log_lines() -> Iterator[LogLines]:
    handlers, level = logging.root.handlers[:], logging.root.level
    lines = LogLines()
    configure_logging(stream=lines.stream)
    yield lines
    structlog.reset_defaults()
    logging.root.handlers[:], logging.root.level = handlers, level


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
