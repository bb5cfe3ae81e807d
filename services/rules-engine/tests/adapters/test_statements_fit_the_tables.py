from __future__ import annotations

import pytest

from tlsy.rules_engine.adapters.postgres import read_statements

STATEMENTS = read_statements()


@pytest.mark.parametrize("name", sorted(STATEMENTS))
async def test_a_statement_can_be_prepared_by_the_service_s_role(installation, name):
    connection = await installation.connect("tlsy_rules_engine", installation.common)
    await connection.execute("set search_path to shared")
    await connection.prepare(STATEMENTS[name])
