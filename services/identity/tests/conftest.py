from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tlsy.identity.migrations import MIGRATIONS
from tlsy.testkit.plugin import built_templates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsy.tenancy.migrations import ServiceMigrations
    from tlsy.testkit.installation import Templates
    from tlsy.testkit.postgres import PostgresServer


@pytest.fixture(scope="session")
def service_migrations() -> tuple[ServiceMigrations, ...]:
    return (MIGRATIONS,)


@pytest.fixture(scope="session")
def database_templates(
    postgres_server: PostgresServer, service_migrations: tuple[ServiceMigrations, ...]
) -> Iterator[Templates]:
    yield from built_templates(postgres_server, service_migrations)
