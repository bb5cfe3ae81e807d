"""Partitions by time, made ahead and dropped behind, and the retention of single tenants.

Which tables are partitioned, and how, is declared by migrations (`tlsy.partition_by_time`) in the database
itself. Everything here is run as tlsy_migrator, by any number of workers at once, and again after a crash.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncpg

from tlsy.tenancy.database import transaction

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, datetime

    from tlsy.runtime.ids import TenantId
    from tlsy.tenancy.database import Connection

_TABLES: Final = """
select format('%I.%I', schema_name, table_name) as name from tlsy.time_table order by schema_name, table_name
"""
_MAKE: Final = "select tlsy.make_partitions($1::text::regclass, $2, $3)"
_DROP: Final = "select tlsy.drop_partitions($1::text::regclass, $2)"
_REQUESTS: Final = """
select format('%I.%I', n.nspname, c.relname) as name
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relname = 'idempotency' and c.relkind = 'r' order by 1
"""
_FORMAT: Final = "select format($1, $2::text::regclass, $3::text, $4::text)"
_FIND: Final = """
select max(at) from (select %2$I as at from %1$s where %3$s %2$I < $1 order by %2$I limit $2) oldest
"""
_DELETE: Final = "delete from %1$s where %3$s %2$I < $1 and %2$I <= $2"
_LOCK_TIMEOUT_MS: Final = 2_000
_BATCH: Final = 5_000


@dataclass(frozen=True, slots=True)
class Maintained:
    """What one round changed; what it could not is for the next round.

    Attributes:
        busy: tables that could not be locked in time.
        failed: tables that failed otherwise, with PostgreSQL's word on it.
        days_ahead: how far the partitions of the table that has fewest reach, from today.
    """

    made: int
    dropped: int
    busy: tuple[str, ...]
    failed: Mapping[str, str]
    days_ahead: int


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

    One transaction per table and step: a table that fails stops no other. Dropping locks the table for a
    moment; where it is not had within two seconds, the table waits for the next round rather than its readers
    for us.
    """
    made, dropped, busy, failed = 0, 0, [], {}
    for name in [row["name"] for row in await connection.fetch(_TABLES)]:
        try:
            made += await connection.fetchval(_MAKE, name, today, False)
            async with transaction(connection):
                await connection.execute(f"set local lock_timeout = {_LOCK_TIMEOUT_MS}")
                dropped += await connection.fetchval(_DROP, name, today)
        except asyncpg.LockNotAvailableError:
            busy.append(name)
        except asyncpg.PostgresError as error:
            if connection.is_closed():
                raise
            failed[name] = str(error)
    days_ahead = await connection.fetchval("select tlsy.days_ahead($1)", today)
    return Maintained(made, dropped, tuple(busy), failed, days_ahead)


async def delete_before(
    connection: Connection,
    table: str,
    column: str,
    tenant_id: TenantId,
    before: datetime,
    *,
    batch: int = _BATCH,
) -> int:
    """Delete a tenant's rows of `table` (qualified) whose `column` is before; answers how many.

    For tenants whose retention is shorter than the table's. In transactions of about `batch` rows, oldest
    first, so that nobody waits long and a crash loses little.
    """
    return await _delete(connection, table, column, before, batch=batch, tenant_id=tenant_id)


async def forget_requests(connection: Connection, now: datetime, *, batch: int = _BATCH) -> int:
    """Delete the answers to requests that have expired, of every service and tenant; answers how many."""
    deleted = 0
    for row in await connection.fetch(_REQUESTS):
        deleted += await _delete(connection, row["name"], "expires_at", now, batch=batch)
    return deleted


async def _delete(
    connection: Connection,
    table: str,
    column: str,
    before: datetime,
    *,
    batch: int,
    tenant_id: TenantId | None = None,
) -> int:
    """By ranges of the index on (tenant_id,) column.

    The end of each is looked up first: joined with the rows themselves, it would be found by reading every
    partition whole.
    """
    whose, args = ("", []) if tenant_id is None else ("tenant_id = $3 and", [tenant_id])
    find, delete = [
        await connection.fetchval(_FORMAT, template, table, column, whose) for template in (_FIND, _DELETE)
    ]
    deleted = 0
    while (end := await connection.fetchval(find, before, batch, *args)) is not None:
        tag = await connection.execute(delete, before, end, *args)
        deleted += int(tag.rpartition(" ")[2])
    return deleted
