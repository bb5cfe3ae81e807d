from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import pytest
import pytest_asyncio
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tlsy.tenancy.cluster import MIGRATOR
from tlsy.testkit.installation import connect
from tlsy.testkit.logs import recorded_logs
from tlsy.testkit.suite import running_suite

from .calls import Client
from .world import World, start_replicas

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tlsy.testkit.installation import Installation, Templates
    from tlsy.testkit.logs import LogLines


_TRACE_RATIO: Final = 0.2


@pytest.fixture(scope="package")
def log_lines() -> Iterator[LogLines]:
    """Everything that our code logs in this process, debug lines included."""
    with recorded_logs(level="debug") as lines:
        # They write every request that they send, which takes more time than all else here.
        for library in ("aiokafka", "grpc"):
            logging.getLogger(library).setLevel(logging.WARNING)
        yield lines
        for library in ("aiokafka", "grpc"):
            logging.getLogger(library).setLevel(logging.NOTSET)


@pytest.fixture(scope="package")
def spans() -> InMemorySpanExporter:
    """Every span that the services in this process record."""
    return InMemorySpanExporter()


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def world(
    database_templates: Templates, log_lines: LogLines, spans: InMemorySpanExporter
) -> AsyncIterator[World]:
    """Two replicas of every service, each with one connection per database, and twelve tenants."""
    async with AsyncExitStack() as stack:
        installation = await stack.enter_async_context(database_templates.installation())
        stack.push_async_callback(drop_dedicated, installation)
        suite = await stack.enter_async_context(
            running_suite(installation, connections_per_database=1, trace_ratio=_TRACE_RATIO)
        )
        suite.telemetry.traces.add_span_processor(SimpleSpanProcessor(spans))
        await start_replicas(suite)
        client = Client(suite.addresses)
        stack.push_async_callback(client.close)
        made = World(suite, client)
        await made.settle()
        yield made


async def drop_dedicated(installation: Installation) -> None:
    """Databases that the registry made."""
    maintenance = await connect(installation.server.address(MIGRATOR), "postgres")
    try:
        for row in await maintenance.fetch(
            "select datname from pg_database where datname ~ '^t_[0-9a-f]{32}$'"
        ):
            await maintenance.execute(f"drop database if exists {row['datname']} with (force)")
    finally:
        await maintenance.close()
