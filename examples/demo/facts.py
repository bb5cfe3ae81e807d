"""What the demonstration proves, every value read back through RPCs or from the databases."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import asyncpg
import grpc

from tlsy.contracts.ingestion.v1 import ingestion_pb2
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as rules_pb
from tlsy.rpc.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from pathlib import Path

    from examples.demo.processes import Running
    from examples.demo.scenario import Tenant

_OUTBOXES: Final = ("tenant_registry", "identity", "ingestion", "rules_engine")
_TIMEOUT_S: Final = 10.0


async def cross_tenant_leaks(tenants: Sequence[Tenant]) -> int:
    """Answers about another tenant that should have been refused, and foreign events among one's own."""
    end = datetime.now(UTC) + timedelta(minutes=5)

    def query(name: str, token: str = "") -> ingestion_pb2.QueryEventsRequest:
        request = ingestion_pb2.QueryEventsRequest(parent=name, page_size=1000, page_token=token)
        request.start_time.FromDatetime(end - timedelta(hours=2))
        request.end_time.FromDatetime(end)
        return request

    leaks = 0
    for tenant in tenants:
        session = tenant.administrator
        foreign = [t for t in tenants if t is not tenant and not t.slug.startswith(f"{tenant.slug}-")]
        asked = [_answered(session.ingestion.QueryEvents(query(other.name))) for other in foreign]
        asked += [
            _answered(session.rules.ListIncidents(rules_pb.ListIncidentsRequest(parent=other.name)))
            for other in foreign
        ]
        leaks += sum(await asyncio.gather(*asked))
        own = await session.ingestion.QueryEvents(query(tenant.name))
        leaks += sum(event.labels["canary"] != tenant.slug for event in own.events)
        incidents = await session.rules.ListIncidents(
            rules_pb.ListIncidentsRequest(parent=tenant.name, page_size=1000)
        )
        leaks += sum(not incident.name.startswith(f"{tenant.name}/") for incident in incidents.incidents)
    return leaks


async def _answered(call: Awaitable[object]) -> bool:
    """Whether a call was answered, or refused for another reason than the tenant edge."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return ServiceError.from_rpc_error(error).reason != "CROSS_TENANT"
    return True


async def written(running: Running, data: Path) -> tuple[int, int]:
    """Usage facts and audit records in the outboxes of all services and databases."""
    password = (data / "suite" / "postgres.password").read_text(encoding="utf-8")
    usage = audit = 0
    for database in await _ask(running, password, "postgres", "select datname from pg_database"):
        name = database["datname"]
        if name in {"template0", "template1", "postgres"} or "template" in name:
            continue
        for service in _OUTBOXES:
            rows = await _ask(
                running,
                password,
                name,
                f"select count(*) filter (where type like '%.usage.recorded.v1') as usage,"  # noqa: S608
                f" count(*) filter (where type like '%.audit.recorded.v1') as audit from {service}.outbox",
            )
            usage += rows[0]["usage"]
            audit += rows[0]["audit"]
    return usage, audit


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
