from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tlsy.identity.migrations import MIGRATIONS

if TYPE_CHECKING:
    from tlsy.tenancy.migrations import ServiceMigrations


@pytest.fixture(scope="session")
def service_migrations() -> tuple[ServiceMigrations, ...]:
    return (MIGRATIONS,)
