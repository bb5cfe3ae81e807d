"""Partitions by time, made ahead and dropped behind, and the retention of single tenants.

Which tables are partitioned, and how, is declared by migrations (`tlsy.partition_by_time`) in the database
itself. Everything here is run as tlsy_migrator, by any number of workers at once, and again after a crash.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncpg

if TYPE_CHECKING:
    from datetime import date, datetime

    from tlsy.runtime.ids import TenantId
    from tlsy.tenancy.database import Connection

_TABLES: Final = """
select format('%I.%I', schema_name, table_name) as name from tlsy.time_table order by schema_name, table_name
"""
_MAKE: Final = "select tlsy.make_partitions($1::text::regclass, $2, $3)"
_DROP: Final = "select tlsy.drop_partitions($1::text::regclass, $2)"
_LOCK_TIMEOUT_MS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Maintained:
    """What one round changed; `busy` tables could not be locked in time and are for the next round."""

    made: int
    dropped: int
    busy: tuple[str, ...]


async def make_partitions(connection: Connection, today: date, *, first: bool = False) -> int:
    """Make the partitions that all declared tables need around `today` (UTC); answers how many were missing.

    `first`: for a new database, no further back than its tables need on their first day.
    """
    made = 0
    for table in await connection.fetch(_TABLES):
        made += await connection.fetchval(_MAKE, table["name"], today, first)
    return made


async def maintain(connection: Connection, today: date) -> Maintained:
    """Make partitions ahead, and drop those that are past their table's retention and not needed any more.

    One transaction per table. Dropping locks the table for a moment; where it is not had within two seconds,
    the table waits for the next round rather than its readers for us.
    """
    made = await make_partitions(connection, today)
    dropped, busy = 0, []
    for table in await connection.fetch(_TABLES):
        try:
            async with connection.transaction():
                await connection.execute(f"set local lock_timeout = {_LOCK_TIMEOUT_MS}")
                dropped += await connection.fetchval(_DROP, table["name"], today)
        except asyncpg.LockNotAvailableError:
            busy.append(table["name"])
    return Maintained(made, dropped, tuple(busy))


async def delete_before(
    connection: Connection,
    table: str,
    column: str,
    tenant_id: TenantId,
    before: datetime,
    *,
    batch: int = 5_000,
) -> int:
    """Delete a tenant's rows of `table` (qualified) whose `column` is before; answers how many.

    For tenants whose retention is shorter than the table's. In transactions of `batch` rows, oldest first, so
    that nobody waits long and a crash loses little.
    """
    statement = await connection.fetchval(
        "select format('delete from %s where (tableoid, ctid) in (select tableoid, ctid from %s "
        "where tenant_id = $1 and %I < $2 order by %I limit $3)', $1::text::regclass, $1::text::regclass, "
        "$2::text, $2::text)",
        table,
        column,
    )
    deleted = 0
    while True:
        tag = await connection.execute(statement, tenant_id, before, batch)
        count = int(tag.rpartition(" ")[2])
        deleted += count
        if count < batch:
            return deleted
