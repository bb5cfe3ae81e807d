"""What is written anywhere but in answers: topics, log lines, and tables as services' roles read them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient

from tlsy.testkit.installation import connect

from .calls import readable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tlsy.tenancy.context import Placement

    from .world import Tenant, World

#: Table and row, as text.
Row = tuple[str, str]

_TOKEN_TENANT: Final = re.compile(rb'"tid":"([0-9a-f-]{36})"')
#: What the role may read at all; PostgreSQL itself refuses it the rest.
_READABLE: Final = """
    select format('%I.%I', n.nspname, c.relname) as name
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
        and has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select')
    order by 1
"""


async def records(brokers: str) -> list[Any]:
    """Every record of every topic, dead letters included."""
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    topics = [name for name in await admin.list_topics() if not name.startswith("__")]
    await admin.close()
    consumer = AIOKafkaConsumer(*topics, bootstrap_servers=brokers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        found = []
        for partition, end in ends.items():
            while await consumer.position(partition) < end:
                found += await _some(consumer)
        return found
    finally:
        await consumer.stop()


async def _some(consumer: AIOKafkaConsumer) -> list[Any]:
    batches = await consumer.getmany(timeout_ms=200)
    return [record for batch in batches.values() for record in batch]


def owner_of(record: Any) -> UUID | None:
    """Whose a record says it is; of a producer's its token says it."""
    headers = dict(record.headers)
    if "tenantid" in headers:
        return UUID(headers["tenantid"].decode())
    found = _TOKEN_TENANT.search(readable(headers.get("authorization", b"")))
    return UUID(found[1].decode()) if found else None


def text_of(record: Any) -> bytes:
    """Every byte of a record."""
    parts = [record.key or b"", record.value or b"", *(value for _, value in record.headers)]
    return readable(b"\n".join(parts))


def lines(logged: str) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Log lines, parsed and as they are."""
    for line in logged.splitlines():
        if line.startswith("{"):
            yield json.loads(line), line.encode()


async def places(world: World) -> list[Placement]:
    """Every database of the installation."""
    installation = world.suite.installation
    dedicated = [f"t_{each.tenant_id.hex}" for each in world.tenants.values() if each.mode == "DEDICATED"]
    common = installation.common
    return [
        installation.control,
        common,
        *(type(common)(common.cluster, name, "tenant") for name in dedicated),
    ]


async def rows_seen(world: World, role: str, place: Placement, contexts: Sequence[str]) -> list[list[Row]]:
    """All rows of all tables, partitions included, that a role sees beside all code of ours.

    Once for each of `contexts`: SQL that is run before, in the same transaction.
    """
    connection = await connect(world.suite.installation.server.address(role), place.database)
    try:
        tables = [row["name"] for row in await connection.fetch(_READABLE)]
        everything = " union all ".join(
            f"select '{name}' as name, t::text as row from {name} t" for name in tables
        )
        seen = []
        for context in contexts:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(context)
            seen.append([(row["name"], row["row"]) for row in await connection.fetch(everything)])
            await transaction.rollback()
        return seen
    finally:
        await connection.close()


def of_others(rows: Iterable[Row], world: World, *own: Tenant) -> list[Row]:
    """Rows that name another tenant by its id, which every row of a tenant does."""
    others = [str(each.tenant_id) for each in world.tenants.values() if each not in own]
    return [(name, row) for name, row in rows if any(other in row for other in others)]
