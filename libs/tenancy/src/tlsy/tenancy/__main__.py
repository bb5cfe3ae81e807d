"""Prepares PostgreSQL servers for the suite, for all services that are installed beside this.

    python -m tlsy.tenancy roles --dsn postgresql://postgres@host:5432 --passwords roles.json
    python -m tlsy.tenancy databases --dsn postgresql://tlsy_migrator@host:5432 --control tlsy_control

`roles` once per server and set of services, as its administrator. `databases` also before each new version's
services start, as tlsy_migrator. Both may be repeated. A password that a DSN does not say is PGPASSWORD's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg

from tlsy.runtime.clock import SystemClock
from tlsy.tenancy.cluster import MAINTENANCE_DATABASE, create_roles, install_database
from tlsy.tenancy.context import Placement
from tlsy.tenancy.database import ClusterAddress, Databases, PoolLimits
from tlsy.tenancy.errors import TenancyError
from tlsy.tenancy.migrations import MigrationFailed, Schemas, installed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlsy.tenancy.migrations import Component

_SERVER: Final = "server"
_PATIENT: Final = PoolLimits(statement_timeout_s=3600.0, lock_timeout_s=60.0)
_FAILURES: Final = (
    TenancyError,
    MigrationFailed,
    ValueError,
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
)


async def _roles(databases: Databases, asked: argparse.Namespace) -> None:
    passwords = {} if asked.passwords is None else json.loads(asked.passwords.read_text(encoding="utf-8"))
    async with databases.acquire(Placement(_SERVER, MAINTENANCE_DATABASE, "")) as connection:
        await create_roles(connection, installed(), passwords)


async def _databases(databases: Databases, asked: argparse.Namespace) -> None:
    schemas, today = Schemas(installed()), SystemClock().now().date()
    wanted: list[tuple[str, Sequence[Component]]] = [(name, schemas.control()) for name in asked.control]
    wanted += [(name, schemas.common()) for name in asked.common]
    for name, components in wanted:
        placement = Placement(_SERVER, name, "")
        for each in await install_database(databases, placement, components, schemas.services, today):
            sys.stdout.write(f"{name}: {each.component} {each.revision} in schema {each.schema}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tlsy.tenancy", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    roles = commands.add_parser("roles", help="make the suite's roles, as the server's administrator")
    roles.add_argument(
        "--passwords", type=Path, help="a JSON file: role to password; set also where it exists"
    )
    roles.set_defaults(run=_roles)
    databases = commands.add_parser("databases", help="make databases, or bring them to this version")
    databases.add_argument("--control", action="append", default=[], metavar="NAME", help="control database")
    databases.add_argument("--common", action="append", default=[], metavar="NAME", help="a common one")
    databases.set_defaults(run=_databases)
    for command in (roles, databases):
        command.add_argument(
            "--dsn", required=True, help="postgresql://user[:password]@host[:port][?sslmode=…]"
        )
    return parser


async def _run(asked: argparse.Namespace) -> None:
    address = ClusterAddress.from_dsn(asked.dsn)
    address = replace(address, password=address.password or os.environ.get("PGPASSWORD", ""))
    databases = Databases({_SERVER: address}, _PATIENT, SystemClock())
    try:
        await asked.run(databases, asked)
    finally:
        await databases.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1, and why, if something could not be done; what was done stays, and repeating goes on."""
    asked = _parser().parse_args(arguments)
    try:
        asyncio.run(_run(asked))
    except _FAILURES as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
