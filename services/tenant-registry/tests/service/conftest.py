"""Two replicas of the registry as they run: sockets, interceptor, provisioners, PostgreSQL, a broker.

One suite for all tests of a process; each test makes tenants of its own. Identity is a stand-in that gives
out the key of the tests' tokens.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import grpc
import pytest
import pytest_asyncio

from tlsy.contracts.events import TOPICS
from tlsy.contracts.tenant_registry.v1 import tenant_pb2, tenant_registry_pb2_grpc
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as pb
from tlsy.eventlog.kafka import KafkaInspector
from tlsy.rpc.channel import CallPolicy, dial_bearer
from tlsy.rpc.errors import ServiceError
from tlsy.runtime.brokers import Brokers
from tlsy.runtime.clock import SystemClock
from tlsy.runtime.ids import PLATFORM_TENANT_ID, Slug, TenantId
from tlsy.tenancy.catalog import TenantEntry
from tlsy.tenancy.cluster import MIGRATOR
from tlsy.tenancy.context import IsolationMode, Placement, TenantState
from tlsy.tenant_registry.app import build
from tlsy.tenant_registry.settings import TenantRegistrySettings
from tlsy.testkit.installation import CLUSTER, PATIENT
from tlsy.testkit.kafka import embedded_broker
from tlsy.testkit.peers import peers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from google.longrunning import operations_pb2

    from tlsy.runtime.service import Service
    from tlsy.testkit.installation import Installation, Templates
    from tlsy.testkit.peers import Peers

DESCRIPTOR = pb.DESCRIPTOR.services_by_name["TenantRegistryService"]
DEADLINE_S = 60.0


def entry_of(tenant_id: UUID, slug: str) -> TenantEntry:
    """As much of a tenant as a token needs."""
    return TenantEntry(
        tenant_id=TenantId(tenant_id),
        slug=Slug(slug),
        parent_id=None,
        ancestors=(),
        country="fr",
        state=TenantState.ACTIVE,
        epoch=1,
        mode=IsolationMode.SHARED,
        placement=Placement(CLUSTER, "", ""),
        modules=frozenset(),
        entitlements={},
        version=1,
        sector_profile="sme",
        time_zone="Etc/UTC",
    )


@dataclass
class Suite:
    """What tests talk to."""

    installation: Installation
    peers: Peers
    folder: Path
    broker: str
    hosts: list[Any] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    channels: list[grpc.aio.Channel] = field(default_factory=list)
    _root: str = ""

    def settings(self, **changes: Any) -> TenantRegistrySettings:
        """Quick to retry, and to notice that another provisioner is gone."""
        quick = {
            "shared_database": self.installation.common.database,
            "base_domain": "tlsy.example",
            "first_cluster": CLUSTER,
            "lease_s": 1.0,
            "first_delay_s": 0.05,
            "max_delay_s": 0.2,
            "attempts": 4,
            "probe_s": 0.2,
        }
        return TenantRegistrySettings(**{**quick, **changes})

    async def start(self, role: Any = "all", **changes: Any) -> Service:
        """One more replica."""
        host = self.peers.host("tenant-registry", role)
        first = self.hosts[0].listen if self.hosts else host.listen
        host = replace(host, peers={**host.peers, "tenant-registry": first})
        service = build(self.settings(**changes), host)
        await service.start()
        self.hosts.append(host)
        self.services.append(service)
        await eventually(lambda: bool(service.ready()))
        return service

    def stub(
        self, token: str = "", replica: int = 0
    ) -> tenant_registry_pb2_grpc.TenantRegistryServiceAsyncStub:
        """A client with this token (the platform's administrator's without one) of a replica."""
        channel = self.peers.dial(self.hosts[replica], DESCRIPTOR, token or self.root())
        return tenant_registry_pb2_grpc.TenantRegistryServiceStub(channel)

    def impatient_stub(self) -> Any:
        """The administrator's client that sends a refused call again only once."""

        async def bearer() -> str:
            return self.root()

        channel = dial_bearer(
            self.hosts[0].listen,
            DESCRIPTOR,
            bearer,
            clock=SystemClock(),
            random=os.urandom,
            policy=CallPolicy(attempts=2),
        )
        self.channels.append(channel)
        return tenant_registry_pb2_grpc.TenantRegistryServiceStub(channel)

    def root(self) -> str:
        """A token of the platform's administrator."""
        self._root = self._root or self.peers.token(
            entry_of(PLATFORM_TENANT_ID, "platform"), "internal-admin"
        )
        return self._root

    def token(self, tenant: tenant_pb2.Tenant, *roles: str) -> str:
        """A token of a principal of the tenant."""
        entry = entry_of(UUID(tenant.tenant_id), tenant.name.removeprefix("tenants/"))
        return self.peers.token(entry, *(roles or ("client-admin",)))

    async def begin(self, slug: str = "", stub: Any = None, **fields: Any) -> operations_pb2.Operation:
        """CreateTenant; a small one in France unless `fields` say otherwise."""
        asked = {"display_name": "A test", "country": "countries/fr", **fields}
        request = pb.CreateTenantRequest(
            tenant_slug=slug or unique_slug(), tenant=tenant_pb2.Tenant(**asked), request_id=str(uuid4())
        )
        return await (stub or self.stub()).CreateTenant(request)

    async def finish(self, operation: operations_pb2.Operation) -> operations_pb2.Operation:
        """The operation, done."""
        deadline = time.monotonic() + DEADLINE_S
        while not operation.done:
            assert time.monotonic() < deadline, operation
            operation = await self.stub().WaitOperation(
                pb.WaitOperationRequest(name=operation.name), timeout=DEADLINE_S
            )
        return operation

    async def tenant(self, slug: str = "", **fields: Any) -> tenant_pb2.Tenant:
        """A new ACTIVE tenant."""
        operation = await self.finish(await self.begin(slug, **fields))
        assert operation.HasField("response"), operation
        made = tenant_pb2.Tenant()
        operation.response.Unpack(made)
        return made

    async def get(self, tenant: tenant_pb2.Tenant, replica: int = 0) -> tenant_pb2.Tenant:
        """The tenant as it is now."""
        return await self.stub(replica=replica).GetTenant(pb.GetTenantRequest(name=tenant.name))

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        """Rows of the control database, as the administrator."""
        connection = await self.installation.connect(None, self.installation.control)
        try:
            return list(await connection.fetch(sql, *args))
        finally:
            await connection.close()


def unique_slug(prefix: str = "t") -> str:
    """A slug that no other test has."""
    return f"{prefix}-{uuid4().hex[:12]}x"


async def eventually(true: Callable[[], bool], within_s: float = DEADLINE_S) -> None:
    """Return once it is true."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.01)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def suite(database_templates: Templates) -> AsyncIterator[Suite]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tlsy-tr-")))
        broker = await stack.enter_async_context(embedded_broker())
        inspector = KafkaInspector(Brokers(broker), "tests")
        await inspector.ensure_topics(dict.fromkeys(TOPICS.values(), 2))
        await inspector.stop()
        installation = await stack.enter_async_context(database_templates.installation())
        around = await stack.enter_async_context(peers(installation, broker))
        made = Suite(installation, around, folder, broker)
        stack.push_async_callback(_drop_databases, installation)
        for _ in range(2):
            service = await made.start()
            stack.push_async_callback(service.stop, 5)
        yield made
        for channel in made.channels:
            await channel.close()


async def _drop_databases(installation: Installation) -> None:
    databases = installation.databases(MIGRATOR, PATIENT)
    async with databases.acquire(Placement(CLUSTER, "postgres", "")) as connection:
        rows = await connection.fetch("select datname from pg_database where datname ~ '^t_[0-9a-f]{32}$'")
        for row in rows:
            await connection.execute(f"drop database if exists {row['datname']} with (force)")


@pytest.fixture
def refused() -> Callable[[Awaitable[object]], Awaitable[ServiceError]]:
    """Awaits a call that must fail; returns the error as a caller sees it."""

    async def run(call: Awaitable[object]) -> ServiceError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        return ServiceError.from_rpc_error(caught.value)

    return run
