from __future__ import annotations

import asyncio
import json
from secrets import token_hex
from urllib.parse import quote

import pytest

from tlsy.tenancy.__main__ import main
from tlsy.tenancy.cluster import create_database
from tlsy.tenancy.database import ClusterAddress
from tlsy.tenancy.lint import lint
from tlsy.tenancy.migrations import installed
from tlsy.testkit.installation import connect


@pytest.fixture
def dsn(postgres_server):
    """The server as one of its roles."""

    def make(user):
        server = postgres_server
        return f"postgresql://{user}:{quote(server.password)}@/?host={quote(server.host)}&port={server.port}"

    return make


@pytest.fixture
def names(postgres_server):
    """A control and a common database of the test's own, to be made."""
    made = [f"cmd_{token_hex(4)}_{kind}" for kind in ("control", "common")]
    yield made

    async def drop():
        connection = await connect(postgres_server.address(), "postgres")
        for name in made:
            await connection.execute(f"drop database if exists {name} with (force)")
        await connection.close()

    asyncio.run(drop())


def test_a_server_is_prepared_and_a_second_time_nothing_happens(
    postgres_server, dsn, names, tmp_path, capsys
):
    passwords = tmp_path / "roles.json"
    passwords.write_text(json.dumps({"tlsy_migrator": postgres_server.password}))
    assert main(["roles", "--dsn", dsn(postgres_server.user), "--passwords", str(passwords)]) == 0
    databases = ["databases", "--dsn", dsn("tlsy_migrator"), "--control", names[0], "--common", names[1]]
    assert main(databases) == 0
    told = capsys.readouterr().out
    assert f"{names[0]}: control 0001_platform in schema tlsy\n" in told
    assert f"{names[1]}: library 0001_context in schema tlsy\n" in told
    assert main(databases) == 0
    assert capsys.readouterr().out == ""

    async def findings(name):
        connection = await connect(postgres_server.address(), name)
        try:
            return await lint(connection, installed())
        finally:
            await connection.close()

    assert [asyncio.run(findings(name)) for name in names] == [(), ()]


@pytest.mark.usefixtures("database_templates")  # for the roles
async def test_of_several_that_make_a_database_at_once_none_fails(postgres_server, names):
    connections = [await connect(postgres_server.address("tlsy_migrator"), "postgres") for _ in range(4)]
    for name in names:
        await asyncio.gather(*(create_database(each, name) for each in connections))
    for each in connections:
        await each.close()


def test_what_could_not_be_done_is_told(dsn, capsys):
    assert main(["databases", "--dsn", "postgresql://tlsy_migrator@127.0.0.1:1", "--control", "x"]) == 1
    assert "PlacementUnavailable" in capsys.readouterr().err
    assert main(["databases", "--dsn", dsn("tlsy_migrator"), "--common", "No-Name"]) == 1
    assert "not a database name" in capsys.readouterr().err


def test_an_address_is_read_from_a_dsn():
    plain = ClusterAddress.from_dsn("postgresql://:p%40ss@db:6432?pooled=1", "tlsy_web_shop")
    assert (plain.host, plain.port, plain.user, plain.password) == ("db", 6432, "tlsy_web_shop", "p@ss")
    assert (plain.pooled, plain.tls) == (True, None)
    local = ClusterAddress.from_dsn("postgresql://postgres@?host=/run/pg&sslmode=verify-full")
    assert (local.host, local.port, local.user) == ("/run/pg", 5432, "postgres")
    assert local.tls is not None
    assert local.tls.check_hostname
