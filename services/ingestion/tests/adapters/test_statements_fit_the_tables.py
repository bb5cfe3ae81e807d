from __future__ import annotations

from importlib.resources import files

import pytest

STATEMENTS = sorted(
    path.name for path in files("tlsy.ingestion.adapters.postgres").iterdir() if path.name.endswith(".sql")
)


@pytest.mark.parametrize("name", STATEMENTS)
async def test_a_statement_can_be_prepared_by_the_service_s_role(installation, name):
    connection = await installation.connect("tlsy_ingestion", installation.common)
    await connection.execute("set search_path to shared")
    text = files("tlsy.ingestion.adapters.postgres").joinpath(name).read_text()
    await connection.prepare(text)
