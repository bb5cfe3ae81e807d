"""Replicas of the service, and what surrounds them, as tests drive them."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc
import pytest

from tlsy.contracts.cloudevents import CloudEvent
from tlsy.contracts.events import EVENTS_ACCEPTED, TOPICS
from tlsy.contracts.ingestion.events.v1.events_pb2 import EventsAccepted
from tlsy.contracts.ingestion.v1 import ingestion_pb2
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2_grpc
from tlsy.eventlog.cloudevents import to_headers
from tlsy.eventlog.kafka import KafkaInspector, KafkaProducer
from tlsy.eventlog.ports import Record
from tlsy.rpc.errors import ServiceError
from tlsy.rules_engine.app import build
from tlsy.rules_engine.settings import RulesEngineSettings
from tlsy.runtime.brokers import Brokers
from tlsy.runtime.clock import SystemClock
from tlsy.runtime.ids import Uuid7

SERVICE = pb.DESCRIPTOR.services_by_name["RulesEngineService"]
TOPIC = TOPICS["ingestion"]
MODULES = frozenset({"supervision", "expert-rules"})
CLOCK = SystemClock()
IDS = Uuid7(CLOCK, os.urandom)


def now_us() -> int:
    return int(CLOCK.now().timestamp() * 1_000_000)


def document(name="hot", **changes) -> bytes:
    """A rule: value above 90 opens, per source and subject."""
    rule = {
        "schema": "tlsy.rule/1",
        "name": name,
        "match": {"type": "room.temperature", "unseen": True},
        "when": {"gt": [{"field": "value"}, 90]},
        "incident": {"severity": "error", "summary": "{source} is at {value}"},
    }
    given = {name: member for name, member in (rule | changes).items() if member is not None}
    return json.dumps(given).encode()


def event(value=95.0, **changes) -> ingestion_pb2.Event:
    """An event that the rule of `document` matches."""
    given: dict[str, Any] = {
        "source": "agent/a",
        "id": str(IDS()),
        "time_us": now_us(),
        "type": "room.temperature",
    }
    return ingestion_pb2.Event(**(given | {"value": value} | changes))


def accepted(tenant, *events, data=None) -> CloudEvent:
    """What ingestion publishes of events that it stored."""
    return CloudEvent(
        id=IDS(),
        type=EVENTS_ACCEPTED,
        source="ingestion",
        tenant_id=tenant.tenant_id,
        epoch=tenant.epoch,
        time=CLOCK.now(),
        key=tenant.tenant_id.hex,
        data=EventsAccepted(events=events).SerializeToString() if data is None else data,
    )


async def until(condition, deadline_s=60.0):
    """What `condition` answers once that is true; the test fails if it never is."""
    async with asyncio.timeout(deadline_s):
        while not (answer := await condition()):
            await asyncio.sleep(0.02)
        return answer


async def refused(call) -> ServiceError:
    """The error that a call is answered with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return ServiceError.from_rpc_error(caught.value)


class ShiftedClock(SystemClock):
    """The system's clock, some time ahead; waits are as long as they are."""

    def __init__(self):
        self.ahead_s = 0.0

    def now(self):
        return super().now() + timedelta(seconds=self.ahead_s)

    def monotonic(self):
        return super().monotonic() + self.ahead_s


class World:
    """Replicas of the service around one installation and one broker."""

    def __init__(self, installation, brokers, around):
        self.installation = installation
        self.brokers = brokers
        self.around = around
        self.replicas = []
        self.hosts = []
        self.stubs = {}
        self.clock = ShiftedClock()
        self.producer = KafkaProducer(Brokers(brokers), "test")
        self.inspector = KafkaInspector(Brokers(brokers), "test")

    async def tenant(self, mode=None, **fields):
        given = {"modules": MODULES} | fields
        return await self.installation.provisioned_tenant(**({"mode": mode} if mode else {}), **given)

    async def replica(self, role="all", **settings):
        host = replace(self.around.host("rules-engine", role), clock=self.clock)
        service = build(RulesEngineSettings(**({"tick_s": 0.1, "retry_s": 0.2} | settings)), host)
        await service.start()
        self.replicas.append(service)
        self.hosts.append(host)
        async with asyncio.timeout(60):
            while not service.ready():
                await asyncio.sleep(0.01)
        return service

    async def shared_out(self, after=0):
        """Waits until every partition was assigned after that epoch, so that none moves; answers the last."""
        connection = await self.installation.connect("tlsy_migrator", self.installation.control)
        sql = """
            select max(epoch) from tlsy.partition_assignment where topic = $1
            having min(epoch) > $2 and count(*) = $3
        """

        async def assigned():
            partitions = len(await self.inspector.end_offsets(TOPIC))
            return await connection.fetchval(sql, TOPIC, after, partitions)

        return await until(assigned)

    async def replica_alone(self, role="all", **settings):
        """Another replica in the place of all that are there."""
        for service in self.replicas:
            await service.stop(5)
        self.replicas.clear()
        self.hosts.clear()
        return await self.replica(role, **settings)

    def stub(self, tenant, *roles, replica=0):
        host, given = self.hosts[replica], roles or ("client-admin",)
        key = (host.listen, tenant.tenant_id, given)
        if key not in self.stubs:
            channel = self.around.dial(host, SERVICE, self.around.token(tenant, *given))
            self.stubs[key] = rules_engine_pb2_grpc.RulesEngineServiceStub(channel)
        return self.stubs[key]

    async def publish(self, tenant, name="hot", **changes):
        request = pb.PublishRuleRequest(
            name=f"tenants/{tenant.slug}/rules/{name}", document=document(name, **changes)
        )
        return await self.stub(tenant).PublishRule(request)

    async def send(self, *events):
        """Puts events on the topic as the relay of ingestion would."""
        records = [
            Record(
                topic=TOPIC,
                key=event.key.encode(),
                value=event.data,
                headers=to_headers(event, log=1),
                time=event.time,
            )
            for event in events
        ]
        assert None not in await self.producer.publish(records, timeout_s=20)

    async def incidents(self, tenant, **wanted):
        request = pb.ListIncidentsRequest(parent=f"tenants/{tenant.slug}", page_size=1000, **wanted)
        return list((await self.stub(tenant).ListIncidents(request)).incidents)

    async def incident(self, tenant, state=pb.INCIDENT_STATE_OPEN, count=1):
        """The incidents, once there are so many in that state; one if it is one."""

        async def there():
            found = await self.incidents(tenant, states=[state])
            return found if len(found) >= count else None

        found = await until(there)
        assert len(found) == count
        return found[0] if count == 1 else found

    async def rows(self, tenant, sql, *args):
        async with self.installation.tenancy("rules_engine").transaction(tenant.context, write=False) as tx:
            return await tx.fetch(sql, *args)

    async def published(self, tenant, kind):
        """Events of a type in the outbox of the tenant's database."""
        connection = await self.installation.connect("tlsy_relay", tenant.placement)
        sql = "select data from rules_engine.outbox where tenant_id = $1 and type = $2 order by seq"
        return [row["data"] for row in await connection.fetch(sql, tenant.tenant_id, kind)]

    async def all_told(self, tenant):
        """Waits until nothing in the outbox of the tenant's database is unpublished."""
        connection = await self.installation.connect("tlsy_relay", tenant.placement)

        async def empty():
            sql = "select not exists (select from rules_engine.outbox where published_at is null)"
            return await connection.fetchval(sql)

        await until(empty)

    def counted(self, metric, **labels):
        """What the first replica exports."""
        return self.hosts[0].telemetry.registry.get_sample_value(metric, labels)

    async def stop(self):
        for service in self.replicas:
            await service.stop(5)
        await self.producer.stop()
        await self.inspector.stop()
