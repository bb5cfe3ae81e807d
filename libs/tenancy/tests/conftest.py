from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SHOP = Path(__file__).parent / "shop" / "__init__.py"


@pytest.fixture(scope="session")
def service_migrations():
    """One small service of these tests' own; it lives in a folder, like any service's migrations."""
    return (runpy.run_path(str(SHOP))["MIGRATIONS"],)
