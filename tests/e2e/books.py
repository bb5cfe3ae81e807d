"""What the databases say of one tenant: read past every service, as an auditor would."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from tlsy.contracts.audit_log.events.v1.events_pb2 import AuditRecorded
from tlsy.contracts.billing.events.v1.events_pb2 import UsageRecorded
from tlsy.contracts.events import INCIDENT_CHANGED, SERVICES, audit_recorded, usage_recorded
from tlsy.contracts.rules_engine.events.v1.events_pb2 import IncidentChanged
from tlsy.testkit.installation import connect

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from tlsy.tenancy.database import ClusterAddress, Connection

#: A deadline of conditions; pods come back slowly on a machine that has other work.
WITHIN_S: Final = 180.0
_POLL_S: Final = 0.1
_USAGE: Final = frozenset(usage_recorded(service) for service in SERVICES)
#: Every change that `World.tenant` and `World.publish_rules` make to one tenant, each with one audit record.
ONBOARDED: Final = MappingProxyType(
    {
        "CreateTenant": 1,
        "provision": 1,
        "ExchangeToken": 1,
        "CreateUser": 1,
        "CreateRoleBinding": 1,
        "LogIn": 1,
        "CreateApiKey": 1,
        "ExchangeApiKey": 1,
        "PublishRule": 3,
    }
)
_PER_MINUTE: Final = "IngestEvents"
_AUDIT: Final = frozenset(audit_recorded(service) for service in SERVICES)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tenant's rows are, and the control database."""

    server: ClusterAddress
    control: str
    database: str
    schema: str
    tenant_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """The sums.

    Attributes:
        stored: rows of events.
        different: of these, how many have a (source, id) of their own.
        ledger: accepted ones, of all minutes.
        month: the count that quotas are held against.
        used: meter to the sum of its usage facts.
        incidents: (rule, state) to how many.
        told: what incident events say: "opened", "acknowledged", "resolved".
        audited: method name to audit records of what was done, but of IngestEvents: that is told per minute.
        told_batches: of IngestEvents, in its audit records and in the rows that say what was told.
        audited_events: accepted ones in audit records, and those that no record tells yet.
        unpublished: outbox rows that no broker has acknowledged yet.
        parked: records that wait for the tenant's database.
    """

    stored: int
    different: int
    ledger: int
    month: int
    used: Mapping[str, int]
    incidents: Mapping[tuple[str, str], int]
    told: Mapping[str, int]
    audited: Mapping[str, int]
    told_batches: tuple[int, int]
    audited_events: int
    unpublished: int
    parked: int

    def all_judged(self) -> bool:
        """Whether every stored event went to the broker and through the rules."""
        return not self.unpublished and not self.parked and self.used.get("rules.evaluated") == self.stored

    def reconcile(self, accepted: int) -> None:
        """Fails unless everything that depends on the number of accepted events says the same."""
        assert (self.stored, self.different, self.ledger, self.month) == (accepted,) * 4, self
        assert self.used["events.accepted"] == self.used["rules.evaluated"] == accepted, self
        assert sum(self.incidents.values()) == self.used["incidents.opened"] == self.told["opened"], self
        assert self.told_batches[0] == self.told_batches[1], self
        assert self.audited_events == accepted, self
        resolved = sum(count for (_, state), count in self.incidents.items() if state == "RESOLVED")
        assert resolved == self.told["resolved"], self


async def read_books(place: Place) -> Books:
    """The books as they are now."""
    used: Counter[str] = Counter()
    told: Counter[str] = Counter()
    audited: Counter[str] = Counter()
    minutes: Counter[str] = Counter()
    unpublished = 0
    for name in (place.control, place.database):
        connection = await connect(place.server, name)
        # One moment: what is told between two statements would be seen twice, or not at all.
        snapshot = connection.transaction(isolation="repeatable_read", readonly=True)
        try:
            await snapshot.start()
            for row in await _published(connection, place.tenant_id):
                unpublished += row["published_at"] is None
                if row["type"] in _USAGE:
                    fact = UsageRecorded.FromString(row["data"])
                    used[fact.meter] += fact.quantity
                elif row["type"] in _AUDIT:
                    record = AuditRecorded.FromString(row["data"])
                    method = record.method.rpartition("/")[2]
                    if method == _PER_MINUTE:
                        minutes["batches"] += record.count
                        minutes["accepted"] += round(record.details.fields["accepted"].number_value)
                    else:
                        audited[method] += record.outcome == "OK"
                elif row["type"] == INCIDENT_CHANGED:
                    told[IncidentChanged.FromString(row["data"]).change] += 1
            if name == place.control:
                parked = await _parked(connection, place.tenant_id)
            else:
                sums, incidents = await _tables(connection, place)
        finally:
            await connection.close()
    told_batches, untold = sums.pop("told_batches"), sums.pop("untold")
    return Books(
        **sums,
        used=used,
        incidents=incidents,
        told=told,
        audited=+audited,
        told_batches=(minutes["batches"], told_batches),
        audited_events=minutes["accepted"] + untold,
        unpublished=unpublished,
        parked=parked,
    )


async def books_once(place: Place, accepted: int, within_s: float = WITHIN_S) -> Books:
    """The books, once so many events are stored and each was judged; AssertionError shows the last ones."""
    until_s = time.monotonic() + within_s
    while not ((books := await read_books(place)).stored >= accepted and books.all_judged()):
        assert time.monotonic() < until_s, books
        await asyncio.sleep(_POLL_S)
    return books


async def _published(connection: Connection, tenant_id: UUID) -> list:
    parts = [
        f"select type, published_at, case when type like '%.events.accepted.%' then '' else data end as data"
        f" from {service.replace('-', '_')}.outbox where tenant_id = $1"
        for service in SERVICES
    ]
    return list(await connection.fetch(" union all ".join(parts), tenant_id))


async def _parked(connection: Connection, tenant_id: UUID) -> int:
    sql = (
        "select (select count(*) from ingestion.parked_record where tenant_id = $1)"
        " + (select count(*) from rules_engine.parked_record where tenant_id = $1)"
    )
    return int(await connection.fetchval(sql, tenant_id))


async def _tables(connection: Connection, place: Place) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    schema = place.schema
    sums = await connection.fetchrow(
        f"""
        select (select count(*) from {schema}.events where tenant_id = $1) as stored,
            (select count(distinct (source, event_id)) from {schema}.events where tenant_id = $1)
                as different,
            (select coalesce(sum(accepted), 0)::bigint from {schema}.ingest_minutes where tenant_id = $1)
                as ledger,
            (select coalesce(sum(told), 0)::bigint from {schema}.ingest_minutes where tenant_id = $1)
                as told_batches,
            (select coalesce(sum(accepted - told_accepted), 0)::bigint from {schema}.ingest_minutes
                where tenant_id = $1) as untold,
            (select coalesce(sum(accepted), 0)::bigint from {schema}.ingest_counts where tenant_id = $1)
                as month
        """,
        place.tenant_id,
    )
    rows = await connection.fetch(
        f"select rule_id, state, count(*) from {schema}.incidents where tenant_id = $1 group by 1, 2",
        place.tenant_id,
    )
    assert sums is not None
    return dict(sums), {(row["rule_id"], row["state"]): row["count"] for row in rows}
