from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def service_migrations():
    from shop import MIGRATIONS

    return (MIGRATIONS,)
