"""What a PostgreSQL server and its databases need before there are schemas: roles, and who may connect."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import asyncpg

from tlsy.tenancy import sql
from tlsy.tenancy.context import Placement
from tlsy.tenancy.migrations import migrate
from tlsy.tenancy.partitions import make_partitions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from tlsy.tenancy.database import Connection, Databases
    from tlsy.tenancy.migrations import Applied, Component, ServiceMigrations

#: Exists on every server; from here databases are made and dropped.
MAINTENANCE_DATABASE: Final = "postgres"
MIGRATOR: Final = "tlsy_migrator"
RELAY: Final = "tlsy_relay"
_DATABASE_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")


async def create_roles(
    connection: Connection, services: Sequence[ServiceMigrations], passwords: Mapping[str, str]
) -> None:
    """Make the roles of the suite on a server, as its administrator; what exists is kept.

    `passwords` by role name are set also where the role exists; a role without one cannot log in by password.
    Several at once take turns.
    """
    await connection.execute("select pg_advisory_lock(hashtext('tlsy.roles'), 0)")
    try:
        await _create_roles(connection, services, passwords)
    finally:
        await connection.execute("select pg_advisory_unlock(hashtext('tlsy.roles'), 0)")


async def _create_roles(
    connection: Connection, services: Sequence[ServiceMigrations], passwords: Mapping[str, str]
) -> None:
    await connection.execute(sql.text("cluster/roles.sql"))
    for service in services:
        await connection.execute(sql.text("cluster/service_role.sql", service.package))
    for role, password in passwords.items():
        statement = await connection.fetchval(
            "select format('alter role %I password %L', $1::text, $2::text)", role, password
        )
        await connection.execute(statement)


async def create_database(connection: Connection, database: str, template: str = "template0") -> None:
    """Make a database as a copy of `template`, unless it exists. As tlsy_migrator, outside a transaction.

    Files are copied, not logged block by block: on these small databases that is the faster way.
    """
    if not (_DATABASE_NAME.fullmatch(database) and _DATABASE_NAME.fullmatch(template)):
        raise ValueError(f"not a database name: {database!r} or {template!r}")
    # Who is second while the first one makes it waits, and then meets the index of the names.
    with suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
        await connection.execute(
            f"create database {database} owner tlsy_owner template {template} strategy file_copy"
        )


async def install_database(
    databases: Databases,
    placement: Placement,
    components: Sequence[Component],
    services: Sequence[ServiceMigrations],
    today: date,
) -> tuple[Applied, ...]:
    """Make the control database or a common one, as tlsy_migrator, or bring it to its heads.

    Idempotent: tables first, then partitions around `today` (UTC), then the services may connect.
    """
    maintenance = Placement(placement.cluster, MAINTENANCE_DATABASE, "")
    async with databases.acquire(maintenance) as connection:
        await create_database(connection, placement.database)
    async with databases.acquire(placement) as connection:
        applied = await migrate(connection, components)
        await make_partitions(connection, today, first=True)
        await connection.execute(connect_grants(placement.database, services))
    return applied


def connect_grants(database: str, services: Sequence[ServiceMigrations]) -> str:
    """SQL: nobody but the suite's roles may connect to the database. Does nothing the second time."""
    roles = ", ".join([MIGRATOR, "tlsy_mover", RELAY, *(service.role for service in services)])
    return (
        f"revoke all on database {database} from public;\ngrant connect on database {database} to {roles};\n"
    )
