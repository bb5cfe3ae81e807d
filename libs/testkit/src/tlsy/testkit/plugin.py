"""The pytest plugin: fixtures that every package's tests get by depending on testkit.

One PostgreSQL server per test process (so one per xdist worker), started at first use: a local process; with
TLSY_TEST_POSTGRES_BASE_IMAGE a container, whose image is built on that one. TLSY_TEST_POSTGRES_DSN names a
running server instead. A package overrides `service_migrations` to have fewer, or its own, tables, and with
it `database_templates`, by `built_templates`: pytest makes a fixture of a session once, for whoever asked
first, also where another package overrides what it is made of.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from tlsy.tenancy import migrations
from tlsy.testkit.clock import FakeClock
from tlsy.testkit.installation import Templates
from tlsy.testkit.logs import LogLines, recorded_logs
from tlsy.testkit.postgres import PostgresServer, running_postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tlsy.tenancy.migrations import ServiceMigrations
    from tlsy.testkit.installation import Installation


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The PostgreSQL server of this test process."""
    dsn = os.environ.get("TLSY_TEST_POSTGRES_DSN")
    if dsn:
        yield PostgresServer.from_dsn(dsn)
        return
    base_image = os.environ.get("TLSY_TEST_POSTGRES_BASE_IMAGE")
    if base_image:
        from tlsy.testkit.containers import postgres_in_a_container  # noqa: PLC0415  few tests need Docker

        with postgres_in_a_container(base_image) as server:
            yield server
        return
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def service_migrations() -> tuple[ServiceMigrations, ...]:
    """The services whose tables the databases have: all that are installed."""
    return migrations.installed()


@pytest.fixture(scope="session")
def database_templates(
    postgres_server: PostgresServer, service_migrations: tuple[ServiceMigrations, ...]
) -> Iterator[Templates]:
    """What the databases of each test are copied from."""
    yield from built_templates(postgres_server, service_migrations)


def built_templates(server: PostgresServer, services: tuple[ServiceMigrations, ...]) -> Iterator[Templates]:
    """Templates with the tables of these services, removed at the end."""
    templates = Templates(server, services)
    asyncio.run(templates.build())
    yield templates
    asyncio.run(templates.drop())


@pytest.fixture
async def installation(
    database_templates: Templates, service_migrations: tuple[ServiceMigrations, ...]
) -> AsyncIterator[Installation]:
    """A control database and a common one of the test's own, migrated; tenants are made by it."""
    if database_templates.schemas.services != tuple(service_migrations):
        raise pytest.UsageError("who overrides service_migrations overrides database_templates too")
    async with database_templates.installation() as fresh:
        yield fresh


@pytest.fixture
def log_lines() -> Iterator[LogLines]:
    """What is logged from here on."""
    with recorded_logs() as lines:
        yield lines


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock that moves only when told to."""
    return FakeClock()
