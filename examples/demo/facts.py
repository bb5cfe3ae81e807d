"""What the demonstration proves, every value read back through RPCs or from the databases."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import grpc

from tlsy.contracts.ingestion.v1 import ingestion_pb2
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as rules_pb
from tlsy.rpc.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence
    from pathlib import Path

    from examples.demo.processes import Running
    from examples.demo.scenario import Tenant

_OUTBOXES: Final = ("tenant_registry", "identity", "ingestion", "rules_engine")
_TIMEOUT_S: Final = 10.0
_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Written:
    """Rows in the databases of all tenants and services."""

    events: int
    usage: int
    audit: int


def missing(proved: Mapping[str, Any]) -> list[str]:
    """What the demonstration promises and did not show."""
    kept = {
        "a tenant of each isolation mode": all(proved["placements"].values()),
        "events": proved["events_stored"] > 0,
        "repeated events that were noticed": proved["duplicates"] > 0,
        "incidents": proved["incidents_opened"] > 0,
        "an acknowledged incident": proved["incidents_acknowledged"] > 0,
        "a resolved incident": proved["incidents_resolved"] > 0,
        "usage facts": proved["usage_facts"] > 0,
        "audit records": proved["audit_records"] > 0,
        "no leak between tenants": proved["cross_tenant_leaks"] == 0,
    }
    return [f"Not shown: {promise}" for promise, held in kept.items() if not held]


async def cross_tenant_leaks(tenants: Sequence[Tenant]) -> int:
    """Answers about another tenant that should have been refused, and foreign events among one's own.

    Also what is below a tenant is another tenant: its own token does not reach there.
    """
    leaks = 0
    for tenant in tenants:
        session = tenant.administrator
        foreign = [other for other in tenants if other is not tenant]
        asked = [_answered(session.ingestion.QueryEvents(_query(other.name))) for other in foreign]
        asked += [
            _answered(session.rules.ListIncidents(rules_pb.ListIncidentsRequest(parent=other.name)))
            for other in foreign
        ]
        leaks += sum(await asyncio.gather(*asked))
        leaks += sum(event.labels["canary"] != tenant.slug for event in await _events_of(tenant))
        incidents = await incidents_of(tenant)
        leaks += sum(not incident.name.startswith(f"{tenant.name}/") for incident in incidents)
    return leaks


async def incidents_of(tenant: Tenant) -> list[rules_pb.Incident]:
    """All incidents of the tenant."""
    found: list[rules_pb.Incident] = []
    request = rules_pb.ListIncidentsRequest(parent=tenant.name, page_size=_PAGE)
    while True:
        page = await tenant.administrator.rules.ListIncidents(request)
        found += page.incidents
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def _events_of(tenant: Tenant) -> list[ingestion_pb2.Event]:
    """All events of the tenant of the last two hours."""
    found: list[ingestion_pb2.Event] = []
    request = _query(tenant.name)
    while True:
        page = await tenant.administrator.ingestion.QueryEvents(request)
        found += page.events
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def _query(name: str) -> ingestion_pb2.QueryEventsRequest:
    end = datetime.now(UTC) + timedelta(minutes=5)
    request = ingestion_pb2.QueryEventsRequest(parent=name, page_size=_PAGE)
    request.start_time.FromDatetime(end - timedelta(hours=2))
    request.end_time.FromDatetime(end)
    return request


async def _answered(call: Awaitable[object]) -> bool:
    """Whether a call was answered, or refused for another reason than the tenant edge."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return ServiceError.from_rpc_error(error).reason != "CROSS_TENANT"
    return True


async def written(running: Running, data: Path) -> Written:
    """Counted by the databases' administrator, for whom no row is hidden."""
    password = (data / "suite" / "postgres.password").read_text(encoding="utf-8")
    events = usage = audit = 0
    for database in await _ask(running, password, "postgres", "select datname from pg_database"):
        name = database["datname"]
        if name in {"template0", "template1", "postgres"} or "template" in name:
            continue
        for table in await _ask(
            running, password, name, "select schemaname from pg_tables where tablename = 'events'"
        ):
            count = f'select count(*) from "{table["schemaname"]}".events'  # noqa: S608 - a name of the catalogue
            events += (await _ask(running, password, name, count))[0]["count"]
        for service in _OUTBOXES:
            rows = await _ask(
                running,
                password,
                name,
                "select"  # noqa: S608 - a name of ours
                " count(*) filter (where type like '%.usage.recorded.v1') as usage,"
                f" count(*) filter (where type like '%.audit.recorded.v1') as audit from {service}.outbox",
            )
            usage += rows[0]["usage"]
            audit += rows[0]["audit"]
    return Written(events, usage, audit)


async def _ask(running: Running, password: str, database: str, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(
        host=running.postgres,
        user="postgres",
        password=password,
        database=database,
        timeout=_TIMEOUT_S,
        command_timeout=_TIMEOUT_S,
    )
    try:
        return list(await connection.fetch(sql))
    finally:
        await connection.close()
