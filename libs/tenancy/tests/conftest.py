from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tlsy.testkit.plugin import built_templates

SHOP = Path(__file__).parent / "shop" / "__init__.py"


@pytest.fixture(scope="session")
def service_migrations():
    """One small service of these tests' own; it lives in a folder, like any service's migrations."""
    return (runpy.run_path(str(SHOP))["MIGRATIONS"],)


@pytest.fixture(scope="session")
def database_templates(postgres_server, service_migrations):
    yield from built_templates(postgres_server, service_migrations)
