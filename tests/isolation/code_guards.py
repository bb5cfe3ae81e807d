"""Guards in Python, each probed through a real server or a real broker that was wired with or without it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import tempfile
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import protovalidate
from prometheus_client import CollectorRegistry

from tlsy.contracts.cloudevents import CloudEvent
from tlsy.contracts.events import EVENTS_ACCEPTED, INGEST_TOPIC, TOPICS
from tlsy.contracts.ingestion.events.v1 import events_pb2
from tlsy.contracts.ingestion.v1 import ingestion_pb2
from tlsy.eventlog.cloudevents import to_headers
from tlsy.eventlog.consumer import Consumer
from tlsy.eventlog.dead_letters import DeadLetters
from tlsy.eventlog.delivery import Direct
from tlsy.eventlog.kafka import KafkaInspector, KafkaProducer
from tlsy.eventlog.kafka_readers import KafkaGroupReader
from tlsy.eventlog.metrics import EventLogMetrics
from tlsy.eventlog.ports import Record
from tlsy.ingestion import consumers
from tlsy.ingestion.adapters.postgres.event_store import PostgresEventStore
from tlsy.ingestion.adapters.prometheus import PrometheusBatches
from tlsy.ingestion.domain.untold import Untold
from tlsy.ingestion.handlers.get_ingest_usage import GetIngestUsage
from tlsy.ingestion.handlers.ingest_events import IngestEvents
from tlsy.ingestion.handlers.list_ingest_outcomes import ListIngestOutcomes
from tlsy.ingestion.handlers.on_produced_events import PRODUCED_EVENTS
from tlsy.ingestion.handlers.query_events import QueryEvents
from tlsy.ingestion.handlers.tail_events import TailEvents
from tlsy.ingestion.rpc.servicer import IngestionServicer, add_to_server
from tlsy.rpc.interceptor import CallInterceptor, Deadlines
from tlsy.rpc.keep_alive import KeepAlive
from tlsy.rpc.keys import Jwks, generate_key, jwks_of
from tlsy.rpc.limits import InFlight, RequestRates
from tlsy.rpc.methods import methods_of
from tlsy.rpc.observer import CallObserver
from tlsy.rpc.permissions import RoleBinding, grants_of
from tlsy.rpc.revocations import DenyList
from tlsy.rpc.server import RpcServer, Served
from tlsy.rpc.tokens import IDENTITY_ISSUER, TokenClaims, TokenVerifier, VerifiedToken, issue_token
from tlsy.runtime.brokers import Brokers
from tlsy.runtime.clock import SystemClock
from tlsy.runtime.ids import PrincipalName, TenantId, Uuid7
from tlsy.runtime.service import Readiness
from tlsy.runtime.telemetry import open_telemetry
from tlsy.testkit.kafka import embedded_broker

from .calls import BY_NAME, Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tlsy.eventlog.delivery import Decode, Delivery
    from tlsy.rpc.keys import SigningKey
    from tlsy.tenancy.catalog import TenantEntry
    from tlsy.testkit.installation import Installation

    from .calls import Answer

_SERVICE: Final = ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"]
_DEADLINE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Issuer:
    """Signs tokens that the verifiers here take, and forges others."""

    clock: SystemClock = field(default_factory=SystemClock)
    key: SigningKey = field(default_factory=generate_key)

    def token(self, tenant: TenantEntry, *roles: str, forged: bool = False) -> str:
        key, now = generate_key() if forged else self.key, self.clock.now().timestamp()
        claims = TokenClaims(
            issuer=IDENTITY_ISSUER,
            principal=PrincipalName(f"tenants/{tenant.slug}/users/{tenant.tenant_id}"),
            tenant_id=tenant.tenant_id,
            slug=tenant.slug,
            audience=("ingestion",),
            roles=tuple(RoleBinding(role) for role in roles),
            issued_at=now,
            expires_at=now + 600,
            token_id="1",
            key_id=key.kid,
        )
        return issue_token(key, claims)

    def verifier(self) -> TokenVerifier:
        async def fetch() -> tuple[str, int]:
            return jwks_of((self.key,)), 1

        keys = Jwks(fetch, self.clock)
        keys.replace(jwks_of((self.key,)), version=1)
        deny_list = DenyList(self.clock)
        deny_list.complete = True
        return TokenVerifier("ingestion", keys=keys, trust={}, deny_list=deny_list, clock=self.clock)


class BelievesTokens:
    """What is left of a verifier when it verifies nothing."""

    async def verify(self, token: str, *, sent_at: Any = None) -> VerifiedToken:
        payload = token.split(".")[1]
        said = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        roles = tuple(RoleBinding(role, module) for role, module in said["roles"])
        claims = TokenClaims(
            issuer=said["iss"],
            principal=said["sub"],
            tenant_id=TenantId(UUID(said["tid"])),
            slug=said["slug"],
            audience=tuple(said["aud"]),
            roles=roles,
            issued_at=said["iat"],
            expires_at=said["exp"],
            token_id=said["jti"],
            key_id="",
        )
        return VerifiedToken(claims, grants_of(roles))


class _NoAudit:
    """The audit log is not what is looked at here."""

    def denied(self, call: Any) -> None: ...

    async def crossed(self, call: Any, resource: str) -> None: ...


@asynccontextmanager
async def ingestion_with(
    admission: Any, installation: Installation, issuer: Issuer
) -> AsyncIterator[Callable[[str, Any], Awaitable[Answer]]]:
    """Ingestion's server behind an interceptor with this module's Admission; yields how to query events."""
    clock, telemetry, in_flight = issuer.clock, open_telemetry("ingestion"), InFlight(100, 100, 100, 10, 10)
    interceptor = CallInterceptor(
        "tlsy.ingestion",
        methods_of(_SERVICE, protovalidate.Validator()),
        admission=admission.Admission(
            verifier=issuer.verifier(),
            catalog=installation.catalog,
            denials=_NoAudit(),
            rates=RequestRates(clock, 1000),
            clock=clock,
        ),
        crossings=_NoAudit(),
        observer=CallObserver(telemetry, clock, os.urandom, in_flight, log_ratio=0),
        in_flight=in_flight,
        deadlines=Deadlines(default_s=10, max_s=10, max_stream_s=10),
        clock=clock,
    )
    with tempfile.TemporaryDirectory(prefix="tk") as folder:
        target = f"unix:{Path(folder) / 's'}"
        served = [Served(_SERVICE, add_to_server, _servicer(installation, clock))]
        server = RpcServer(target, served, interceptor, ready=Readiness, tls=None, keep_alive=KeepAlive())
        await server.start()
        client = Client({"ingestion": [target]})

        async def query(token: str, request: Any) -> Answer:
            return await client.ask(BY_NAME["QueryEvents"], request, token)

        try:
            yield query
        finally:
            await client.close()
            await server.stop(0)
            telemetry.close()


def _servicer(installation: Installation, clock: SystemClock) -> IngestionServicer:
    tenancy, store = installation.tenancy("ingestion"), PostgresEventStore(0)
    return IngestionServicer(
        ingest=IngestEvents(
            tenancy=tenancy,
            store=store,
            after_commit=lambda tenant, events: None,
            clock=clock,
            ids=Uuid7(clock, os.urandom),
            lateness=timedelta(days=3),
            untold=Untold(),
            observer=PrometheusBatches(CollectorRegistry()),
        ),
        query=QueryEvents(tenancy=tenancy, store=store),
        tail=TailEvents(nullcontext),
        outcomes=ListIngestOutcomes(tenancy=tenancy, store=store),
        usage=GetIngestUsage(tenancy=tenancy, store=store, clock=clock),
    )


async def outcome_of(record: Record, decode: Decode, installation: Installation) -> str:
    """What a consumer with this decoder does with the record: "applied" to its handler, or "refused"."""
    clock, group, topics = SystemClock(), "ingestion", [record.topic]
    applied = asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        applied.set()

    async with embedded_broker() as servers:
        brokers = Brokers(servers)
        producer, inspector = KafkaProducer(brokers, "test"), KafkaInspector(brokers, "test")
        await inspector.ensure_topics({record.topic: 1})
        assert None not in await producer.publish([record], timeout_s=20)
        consumer = Consumer(
            group,
            topics,
            package="ingestion",
            reader=lambda: KafkaGroupReader(brokers, group, topics, "test"),
            routes={EVENTS_ACCEPTED: Direct(handle), PRODUCED_EVENTS: Direct(handle)},
            transactions=installation.tenancy("ingestion"),
            dead_letters=DeadLetters(group, producer, inspector, clock),
            clock=clock,
            jitter=lambda: 0.5,
            metrics=EventLogMetrics(CollectorRegistry()),
            decode=decode,
            payloads={EVENTS_ACCEPTED: events_pb2.EventsAccepted, PRODUCED_EVENTS: events_pb2.ProducedEvents},
        )
        await consumer.start()
        try:
            async with asyncio.timeout(_DEADLINE_S):
                while not applied.is_set():
                    letters = await inspector.end_offsets(f"{record.topic}.{group}.dlq")
                    if sum(letters.values()):
                        return "refused"
                    await asyncio.sleep(0.02)
            return "applied"
        finally:
            await consumer.stop(5)
            await producer.stop()
            await inspector.stop()


def told(tenant: TenantEntry, key_of: TenantEntry, source: str = "ingestion") -> Record:
    """A record on ingestion's topic that claims a tenant, under the key of one."""
    clock = SystemClock()
    event = CloudEvent(
        id=Uuid7(clock, os.urandom)(),
        type=EVENTS_ACCEPTED,
        source=source,
        tenant_id=tenant.tenant_id,
        epoch=1,
        time=clock.now(),
        key=key_of.tenant_id.hex,
        data=events_pb2.EventsAccepted().SerializeToString(),
    )
    return Record(
        topic=TOPICS["ingestion"],
        key=event.key.encode(),
        value=event.data,
        headers=to_headers(event, log=1),
        time=event.time,
    )


def producers_decoder(verifier: Any, module: Any = None) -> Decode:
    """How ingestion reads the producers' topic, with another verifier or from an altered module."""
    made = (module or consumers).ProducerCredentials(verifier=verifier)
    decode: Decode = made.decode
    return decode


def produced(token: str) -> Record:
    """A producer's record with a token."""
    return Record(
        topic=INGEST_TOPIC,
        key=b"k",
        value=events_pb2.ProducedEvents().SerializeToString(),
        headers=(("authorization", f"Bearer {token}".encode()),),
        time=SystemClock().now(),
    )
