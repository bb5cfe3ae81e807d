from __future__ import annotations

import pytest

from tlsy.rules_engine.migrations import MIGRATIONS
from tlsy.testkit.plugin import built_templates


@pytest.fixture(scope="session")
def service_migrations():
    return (MIGRATIONS,)


@pytest.fixture(scope="session")
def database_templates(postgres_server, service_migrations):
    yield from built_templates(postgres_server, service_migrations)
