from __future__ import annotations

import pytest

from tlsy.rules_engine.migrations import MIGRATIONS


@pytest.fixture(scope="session")
def service_migrations():
    return (MIGRATIONS,)
