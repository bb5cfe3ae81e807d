from __future__ import annotations

from dataclasses import replace

import pytest

from tlsy.tenancy.cluster import MIGRATOR

from .workshop import Workshop


@pytest.fixture
async def workshop(installation):
    made = Workshop(installation)
    yield made
    maintenance = await installation.connect(MIGRATOR, replace(installation.control, database="postgres"))
    for database in made.made:
        await maintenance.execute(f"drop database if exists {database} with (force)")
