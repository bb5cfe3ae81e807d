"""What row-level security and the tenant's context cost a query.

A million events of 500 tenants over 35 days, on shared tables. Ours: a page of the 100 newest events of a
tenant's last three days (it has 57 a day), as the service's role, inside `enter`. The other: the same
statement in the same shape of transaction (BEGIN with `enter`, the statement, COMMIT), as a role that row-
level security does not apply to, with the tenant as an explicit filter. `ratio_to_no_context` is ours to a
transaction without `enter`. `context_ms` is what `enter` adds to BEGIN, one statement, COMMIT, and
`raw_context_ms` what the call of a procedure that does nothing adds. In turns, so that all meet the same
machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from tlsy.runtime.clock import SystemClock
from tlsy.runtime.ids import Slug, TenantId
from tlsy.tenancy import migrations
from tlsy.tenancy.context import SHARED_SCHEMA, IsolationMode, Placement, TenantContext
from tlsy.tenancy.database import Databases, PoolLimits
from tlsy.tenancy.unit_of_work import Tenancy
from tlsy.testkit.catalog import StaticCatalog
from tlsy.testkit.installation import CLUSTER, Templates
from tlsy.testkit.postgres import running_postgres
from tlsy.testkit.wire import counted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tlsy.tenancy.database import Connection
    from tlsy.testkit.installation import Installation
    from tlsy.testkit.postgres import PostgresServer

TENANTS: Final = 500
DAYS: Final = 35
EVENTS: Final = 1_000_000
PAGES: Final = 1_500
PAGE_ROWS: Final = 100
#: In which a tenant has more than a page, so that a page is full.
RECENT: Final = timedelta(days=3)
CONTEXTS: Final = 3_000
MOST_RATIO: Final = 1.10
MOST_CONTEXT_MS: Final = 0.05
_LAST: Final = (datetime(9999, 1, 1, tzinfo=UTC), b"\xff" * 16)


def tenant_id(number: int) -> UUID:
    """The tenants' ids."""
    return UUID(int=(7 << 76) | (2 << 62) | (number + 1))


async def fill(administrator: Connection, now: datetime) -> None:
    """Partitions, fences and a million rows."""
    await administrator.execute("set search_path to shared")
    await administrator.execute(
        "select tlsy.ensure_partition('events', 'day', d::date)"
        " from generate_series(current_date - 36, current_date + 1, interval '1 day') d"
    )
    await administrator.executemany(
        "insert into tlsy.fence (tenant_id, epoch, writable, state, schema_name)"
        " values ($1, 1, true, 'ACTIVE', $2)",
        [(tenant_id(number), SHARED_SCHEMA) for number in range(TENANTS)],
    )
    await administrator.execute(
        """
        insert into events
        select
            ('00000000-0000-7000-8000-' || lpad(to_hex(1 + n % $1), 12, '0'))::uuid,
            $2::timestamptz - (n / $1) * ($3::interval / ($4 / $1)),
            decode(md5(n::text), 'hex'), 'agent/web-' || n % 7, n::text, 'host.cpu', 'cpu0', 'paris', 2,
            n % 100,
            '{"host": "web-1", "region": "eu-west", "env": "prod", "rack": "r12", "app": "x", "version": "1"}'
        from generate_series(0, $4 - 1) n
        """,
        TENANTS,
        now,
        timedelta(days=DAYS),
        EVENTS,
        timeout=300,
    )
    await administrator.execute("analyze events", timeout=120)


async def read_page(connection: Connection, sql: str, *args: object) -> None:
    """The statement, which must answer a full page."""
    rows = await connection.fetch(sql, *args)
    if len(rows) != PAGE_ROWS:
        raise RuntimeError(f"a page has {len(rows)} rows instead of {PAGE_ROWS}")


async def in_turns(count: int, *acts: Callable[[int], Awaitable[None]]) -> list[list[float]]:
    """Milliseconds of each act, run one after the other `count` times.

    Another one begins each time: the first to touch a tenant's rows finds them in no cache of the processor.
    """
    times: list[list[float]] = [[] for _ in acts]
    for number in range(count):
        for place in (*range(number % len(acts), len(acts)), *range(number % len(acts))):
            began_s = time.perf_counter()
            await acts[place](number)
            times[place].append((time.perf_counter() - began_s) * 1000)
    return times


async def bench(server: PostgresServer) -> dict[str, Any]:
    """One installation, filled, measured."""
    templates = Templates(server, migrations.installed())
    await templates.build()
    now = datetime.now(UTC)
    async with templates.installation() as installation:
        administrator = await installation.connect(None, installation.common)
        await fill(administrator, now)
        stranger = await installation.connect(None, installation.common)
        await stranger.execute("set search_path to shared")
        service = await installation.connect("tlsy_ingestion", installation.common)
        page = files("tlsy.ingestion.adapters.postgres").joinpath("list_events.sql").read_text()
        explicit = page.replace("where\n", "where\n    tenant_id = $7\n    and ", 1)
        window = (now - RECENT, now + timedelta(minutes=1), *_LAST, None, PAGE_ROWS)
        picks = random.Random(1)
        order = [picks.randrange(TENANTS) for _ in range(PAGES)]

        async def ours(number: int) -> None:
            tenant = tenant_id(order[number])
            await service.execute(f"begin read only; call tlsy.enter('{tenant}', '1', 'f')")
            await read_page(service, page, *window)
            await service.execute("commit")

        async def bare(number: int) -> None:
            tenant = tenant_id(order[number])
            await administrator.execute(f"begin read only; call tlsy.enter('{tenant}', '1', 'f')")
            await read_page(administrator, explicit, *window, tenant)
            await administrator.execute("commit")

        async def no_context(number: int) -> None:
            await stranger.execute("begin read only; select 1")
            await read_page(stranger, explicit, *window, tenant_id(order[number]))
            await stranger.execute("commit")

        await in_turns(50, ours, bare, no_context)
        times = await in_turns(PAGES, ours, bare, no_context)
        contexts = await measured_contexts(installation, administrator)
        extra_round_trips = await round_trips(server, installation.common.database)
    ours_ms, bare_ms, no_context_ms = map(statistics.median, times)
    return {
        "ratio": round(ours_ms / bare_ms, 3),
        "ratio_to_no_context": round(ours_ms / no_context_ms, 3),
        "ours_p50_ms": round(ours_ms, 3),
        "raw_p50_ms": round(bare_ms, 3),
        **contexts,
        "extra_round_trips": extra_round_trips,
        "rows": EVENTS,
    }


async def round_trips(server: PostgresServer, database: str) -> int:
    """What a transaction of the unit of work takes beyond BEGIN, the statement and COMMIT, counted."""
    tenant = TenantContext(
        tenant_id=TenantId(tenant_id(0)),
        slug=Slug("bench"),
        epoch=1,
        placement=Placement(CLUSTER, database, SHARED_SCHEMA),
        mode=IsolationMode.SHARED,
    )
    with counted(server.address("tlsy_ingestion")) as wire:
        databases = Databases({CLUSTER: wire.address}, PoolLimits(total=1), SystemClock())
        tenancy = Tenancy(
            package="ingestion", databases=databases, catalog=StaticCatalog(), control=tenant.placement
        )
        async with databases.acquire(tenant.placement) as connection:
            wire.clear()
            async with connection.transaction(readonly=True):
                await connection.execute("select 1")
            plain = wire.trips
        wire.clear()
        async with tenancy.transaction(tenant, write=False) as tx:
            await tx.execute("select 1")
        entered = wire.trips
        await databases.close()
    return entered - plain


async def measured_contexts(installation: Installation, administrator: Connection) -> dict[str, float]:
    """What `enter`, and a procedure that does nothing, add to BEGIN, a statement and COMMIT.

    In the same message as BEGIN. On a connection each, as a pool has them: one that changes its search_path
    has to plan anew. On one processor: what two of them take to wake each other is the machine's, and varies
    by more than is measured here.
    """
    await administrator.execute(
        "create procedure tlsy.nothing(tenant uuid, epoch bigint, write boolean) language plpgsql"
        " as 'begin end'; grant execute on procedure tlsy.nothing to public"
    )
    context = f"('{tenant_id(0)}', '1', 'f')"
    acts, processes = [], [0]
    for call in ("", f"; call tlsy.enter{context}", f"; call tlsy.nothing{context}"):
        connection = await installation.connect("tlsy_ingestion", installation.common)
        processes.append(connection.get_server_pid())
        acts.append(partial(statement, connection, f"begin read only{call}"))
    usable = os.sched_getaffinity(0)
    for process in processes:
        os.sched_setaffinity(process, {max(usable)})
    await in_turns(100, *acts)
    times = await in_turns(CONTEXTS, *acts)
    os.sched_setaffinity(0, usable)
    plain_ms, entered_ms, called_ms = map(statistics.median, times)
    return {
        "context_ms": round(entered_ms - plain_ms, 4),
        "raw_context_ms": round(called_ms - plain_ms, 4),
    }


async def statement(connection: Connection, begin: str, _: int) -> None:
    """A transaction of one statement."""
    await connection.execute(begin)
    await connection.fetchval("select 1")
    await connection.execute("commit")


def main() -> int:
    """Prints the figures."""
    with running_postgres() as server:
        figures = asyncio.run(bench(server))
    sys.stdout.write(json.dumps(figures) + "\n")
    reached = figures["ratio"] <= MOST_RATIO and figures["context_ms"] <= MOST_CONTEXT_MS
    return 0 if reached and figures["extra_round_trips"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
