from __future__ import annotations

import pytest


@pytest.fixture
def dsn(installation):
    server, common = installation.server, installation.common
    address = server.address(None)
    return f"postgresql://{address.user}:{address.password}@/{common.database}?host={address.host}&port={address.port}"


async def test_a_clean_database_has_no_findings(tlsy, dsn):
    result = await tlsy("tenancy", "lint", "--dsn", dsn, "-o", "json")
    assert (result.code, result.out) == (0, "[]\n")


async def test_a_table_that_does_not_force_row_level_security_is_found(tlsy, installation, dsn):
    owner = await installation.connect(None, installation.common)
    await owner.execute("alter table tlsy.fence no force row level security")
    result = await tlsy("tenancy", "lint", "--dsn", dsn, "-o", "json")
    assert result.code == 1
    assert [(row["code"], row["object"]) for row in result.json] == [("RLS_NOT_FORCED", "tlsy.fence")]


async def test_a_database_that_is_away_is_told(tlsy):
    result = await tlsy("tenancy", "lint", "--dsn", "postgresql://a:b@127.0.0.1:1/none")
    assert result.code == 3
