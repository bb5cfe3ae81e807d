"""Two replicas of identity as they run: sockets, the interceptor, PostgreSQL in all three modes, a broker.

One suite for all tests of a process; each test takes users and keys of its own.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import grpc
import pytest
import pytest_asyncio
from pydantic import SecretStr

from tlsy.contracts.audit_log.events.v1.events_pb2 import AuditRecorded
from tlsy.contracts.events import TOPICS
from tlsy.contracts.identity.v1 import identity_pb2 as pb
from tlsy.contracts.identity.v1 import identity_pb2_grpc
from tlsy.contracts.tenant_registry.v1 import tenant_pb2, tenant_registry_pb2, tenant_registry_pb2_grpc
from tlsy.eventlog.kafka import KafkaInspector
from tlsy.identity.adapters.postgres import read_statements
from tlsy.identity.adapters.postgres.control import PostgresSigningKeys
from tlsy.identity.adapters.sealing import Sealer
from tlsy.identity.app import build
from tlsy.identity.domain.signing import Slot
from tlsy.identity.settings import IdentitySettings, new_keys_file, read_keys
from tlsy.rpc.channel import dial_bearer
from tlsy.rpc.errors import ServiceError
from tlsy.rpc.keys import generate_key, jwks_of, load_signing_key
from tlsy.runtime.brokers import Brokers
from tlsy.runtime.clock import SystemClock
from tlsy.runtime.host import Host
from tlsy.runtime.ids import PLATFORM_TENANT_ID, Uuid7
from tlsy.runtime.telemetry import open_telemetry
from tlsy.tenancy.cluster import MIGRATOR, connect_grants, create_database
from tlsy.tenancy.context import PLATFORM, IsolationMode, TenantState
from tlsy.tenancy.provisioning import DesiredState
from tlsy.testkit.installation import CLUSTER, Installation, connect
from tlsy.testkit.kafka import embedded_broker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tlsy.rpc.keys import SigningKey
    from tlsy.runtime.service import Service
    from tlsy.tenancy.catalog import TenantEntry
    from tlsy.tenancy.context import Placement
    from tlsy.tenancy.database import Connection
    from tlsy.testkit.installation import Templates

PASSWORD: Final = "a long enough passphrase"
ROOT_EMAIL: Final = "root@platform.example"
_DEADLINE_S: Final = 60.0


class Registry(tenant_registry_pb2_grpc.TenantRegistryServiceServicer):
    """Stands in for the registry: its snapshot, from what tests have made; it tells no events."""

    def __init__(self, tenants: dict[str, TenantEntry]) -> None:
        self._tenants = tenants

    async def SnapshotCatalog(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802  gRPC's
        yield tenant_registry_pb2.SnapshotCatalogResponse(entries=list(map(_told, self._tenants.values())))


def _told(entry: TenantEntry) -> tenant_registry_pb2.CatalogEntry:
    place = entry.placement
    return tenant_registry_pb2.CatalogEntry(
        tenant_id=str(entry.tenant_id),
        slug=entry.slug,
        country=entry.country,
        ancestor_ids=[str(ancestor) for ancestor in entry.ancestors],
        sector_profile=tenant_pb2.SECTOR_PROFILE_SME,
        isolation_mode=tenant_pb2.IsolationMode.Value(f"ISOLATION_MODE_{entry.mode}"),
        state=tenant_pb2.TenantState.Value(f"TENANT_STATE_{entry.state}"),
        epoch=entry.epoch,
        placement=tenant_pb2.Placement(cluster=place.cluster, database=place.database, schema=place.schema),
        entitlements=entry.entitlements,
        provider_access=tenant_pb2.ProviderAccess.Value(f"PROVIDER_ACCESS_{entry.provider_access}"),
        time_zone=entry.time_zone,
        version=entry.version,
    )


@dataclass(slots=True)
class Person:
    """A user who has logged in."""

    tenant: TenantEntry
    name: str
    email: str
    token: str
    password: str = PASSWORD


@dataclass
class Suite:
    """What tests talk to."""

    installation: Installation
    tenants: dict[str, TenantEntry]
    targets: list[str]
    settings: IdentitySettings
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _stubs: dict[tuple[int, str], identity_pb2_grpc.IdentityServiceAsyncStub] = field(default_factory=dict)
    _root: str = ""

    def stub(self, token: str = "", replica: int = 0) -> identity_pb2_grpc.IdentityServiceAsyncStub:
        """A client with this token, of one of the replicas."""
        known = self._stubs.get((replica, token))
        if known is not None:
            return known

        async def bearer() -> str:
            return token

        channel = dial_bearer(
            self.targets[replica],
            pb.DESCRIPTOR.services_by_name["IdentityService"],
            bearer if token else None,
            clock=SystemClock(),
            random=os.urandom,
        )
        self._stack.push_async_callback(channel.close)
        made = self._stubs[(replica, token)] = identity_pb2_grpc.IdentityServiceStub(channel)
        return made

    async def root(self) -> str:
        """A token of the platform's first administrator."""
        if not self._root:
            self._root = await self.log_in("platform", ROOT_EMAIL)
        return self._root

    async def log_in(self, slug: str, email: str, password: str = PASSWORD, replica: int = 0) -> str:
        """A token."""
        answer = await self.stub(replica=replica).LogIn(
            pb.LogInRequest(tenant=f"tenants/{slug}", email=email, password=password)
        )
        return answer.token.access_token

    async def into(self, name: str) -> str:
        """A client-admin's token of the tenant, by exchange."""
        target = f"tenants/{self.tenants[name].slug}"
        request = pb.ExchangeTokenRequest(target_tenant=target, reason="a test")
        return (await self.stub(await self.root()).ExchangeToken(request)).token.access_token

    async def person(self, tenant: str, *roles: str, by: str | None = None) -> Person:
        """A new user of the tenant with these roles, logged in."""
        entry = self.tenants[tenant]
        token = by or (await self.root() if tenant == "platform" else await self.into(tenant))
        stub, parent = self.stub(token), f"tenants/{entry.slug}"
        email = f"{uuid4().hex}@example.org"
        user = await stub.CreateUser(
            pb.CreateUserRequest(parent=parent, user=pb.User(email=email), password=PASSWORD)
        )
        for role in roles:
            binding = pb.RoleBinding(principal=user.name, role=role)
            await stub.CreateRoleBinding(pb.CreateRoleBindingRequest(parent=parent, role_binding=binding))
        return Person(entry, user.name, email, await self.log_in(entry.slug, email))

    async def api_key(self, tenant: str, role: str = "viewer") -> tuple[pb.ApiKey, str]:
        """A new key and its secret."""
        parent = f"tenants/{self.tenants[tenant].slug}"
        request = pb.CreateApiKeyRequest(parent=parent, display_name="a test", role=role)
        made = await self.stub(await self.into(tenant)).CreateApiKey(request)
        return made.api_key, made.secret

    async def key_token(self, secret: str, replica: int = 0) -> str:
        """A token of an API key."""
        request = pb.ExchangeApiKeyRequest(api_key=secret)
        return (await self.stub(replica=replica).ExchangeApiKey(request)).token.access_token

    async def signer(self) -> SigningKey:
        """The key that signs tokens now, taken from the database with the keys file."""
        keys = read_keys(self.settings.keys_file)
        store = PostgresSigningKeys(read_statements())
        async with self.installation.tenancy("identity").control(PLATFORM, write=False) as tx:
            ring = await store.read(tx)
        signing = next(key for key in ring.keys if key.slot is Slot.SIGNING)
        assert signing.sealed_private is not None
        sealer = Sealer(keys.sealing, keys.current, os.urandom)
        place = (PLATFORM_TENANT_ID, "signing_keys", "private_sealed")
        return load_signing_key(sealer.open(*place, signing.sealed_private))

    async def audited(self, tenant: str, method: str) -> list[Any]:
        """Audit records of a method in the tenant's outbox, oldest first."""
        records = [
            AuditRecorded.FromString(data)
            for kind, data in await self.outbox(tenant)
            if kind == "tlsy.identity.audit.recorded.v1"
        ]
        return [record for record in records if record.method.endswith(f"/{method}")]

    async def outbox(self, tenant: str) -> list[tuple[str, bytes]]:
        """Type and data of every event of the tenant in its own outbox."""
        entry = self.tenants[tenant]
        async with self.administrator(entry.placement) as connection:
            rows = await connection.fetch(
                "select type, data from identity.outbox where tenant_id = $1 order by seq", entry.tenant_id
            )
        return [(row["type"], bytes(row["data"])) for row in rows]

    @asynccontextmanager
    async def administrator(self, placement: Placement) -> AsyncIterator[Connection]:
        """A connection that sees everything of a database."""
        connection = await connect(self.installation.server.address(), placement.database)
        try:
            yield connection
        finally:
            await connection.close()


@asynccontextmanager
async def _installation(templates: Templates) -> AsyncIterator[Installation]:
    """As testkit's, but the control database has the name that services expect."""
    maintenance = await connect(templates.server.address(MIGRATOR), "postgres")
    names = (("tlsy_control", templates.control), ("tlsy_tenants", templates.common))
    for name, template in names:
        await create_database(maintenance, name, template)
        await maintenance.execute(connect_grants(name, templates.schemas.services))
    made = Installation(
        templates.server, templates.schemas, "tlsy_control", "tlsy_tenants", templates.built_on
    )
    try:
        yield made
    finally:
        await made.close()
        for name in ("tlsy_control", "tlsy_tenants", *(entry.placement.database for entry in made.dedicated)):
            await maintenance.execute(f"drop database if exists {name} with (force)")
        await maintenance.close()


async def _tenants(installation: Installation) -> dict[str, TenantEntry]:
    made = {
        "platform": await installation.platform_tenant(),
        "shared": await installation.provisioned_tenant(slug="acme", provider_access="FULL"),
        "schema": await installation.provisioned_tenant(
            IsolationMode.SCHEMA, slug="globex", provider_access="FULL"
        ),
        "dedicated": await installation.provisioned_tenant(
            IsolationMode.DEDICATED, slug="initech", provider_access="FULL"
        ),
        "small": await installation.provisioned_tenant(
            slug="small", provider_access="FULL", entitlements={"api_keys": 1, "users": 1}
        ),
        "private": await installation.provisioned_tenant(slug="private", provider_access="NONE"),
        "new": await installation.provisioned_tenant(slug="new", provider_access="ONBOARDING"),
    }
    made["child"] = await installation.provisioned_tenant(
        slug="acme-child", provider_access="NONE", ancestors=(made["shared"].tenant_id,)
    )
    asleep = await installation.provisioned_tenant(slug="asleep", provider_access="FULL")
    made["suspended"] = replace(asleep, state=TenantState.SUSPENDED, epoch=2)
    await installation.converge(made["suspended"], DesiredState.SUSPENDED)
    return made


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def suite(database_templates: Templates) -> AsyncIterator[Suite]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tlsy-id-")))
        broker = await stack.enter_async_context(embedded_broker())
        inspector = KafkaInspector(Brokers(broker), "tests")
        await inspector.ensure_topics(dict.fromkeys(TOPICS.values(), 2))
        await inspector.stop()
        installation = await stack.enter_async_context(_installation(database_templates))
        tenants = await _tenants(installation)
        registry = await _registry(folder, tenants)
        stack.push_async_callback(registry.stop, 0)
        targets = [f"unix:{folder}/identity-{number}" for number in range(2)]
        key_file = folder / "bootstrap-key"
        settings = _settings(folder, key_file)
        trust = {"identity": generate_key()}
        for target in targets:
            host = _host(target, folder, targets[0], installation, broker, trust["identity"])
            service = build(settings, host)
            await service.start()
            stack.push_async_callback(service.stop, 5)
            await _until_ready(service)
        made = Suite(installation, tenants, targets, settings)
        stack.push_async_callback(made._stack.aclose)
        await eventually(key_file.exists)
        yield made


async def _registry(folder: Path, tenants: dict[str, TenantEntry]) -> grpc.aio.Server:
    server = grpc.aio.server()
    registry = Registry(tenants)  # type: ignore[abstract]  # only what identity calls
    tenant_registry_pb2_grpc.add_TenantRegistryServiceServicer_to_server(registry, server)
    server.add_insecure_port(f"unix:{folder}/registry")
    await server.start()
    return server


def _settings(folder: Path, key_file: Path) -> IdentitySettings:
    keys = folder / "keys.json"
    keys.write_text(new_keys_file(os.urandom))
    return IdentitySettings(
        keys_file=keys,
        bootstrap_admin_email=ROOT_EMAIL,
        bootstrap_admin_password=SecretStr(PASSWORD),
        bootstrap_key_file=key_file,
        argon2_memory_kib=64,
        argon2_passes=1,
        tenant_failures=1000,
        user_token_s=600,
        key_exchanges=100_000,
        ring_refresh_s=0.1,
        jwks_cache_s=1,
        clock_leeway_s=0,
    )


def _host(target: str, folder: Path, first: str, installation: Installation, broker: str, key: Any) -> Host:
    clock = SystemClock()
    server = installation.server
    return Host(
        service="identity",
        role="all",
        clock=clock,
        random=os.urandom,
        ids=Uuid7(clock, os.urandom),
        telemetry=open_telemetry("identity"),
        listen=target,
        peers={"identity": first, "tenant-registry": f"unix:{folder}/registry"},
        clusters={CLUSTER: f"postgresql://:{server.password}@local:{server.port}?host={server.host}"},
        control_cluster=CLUSTER,
        brokers=Brokers(broker),
        service_key=key.private_jwk,
        trust={"identity": jwks_of((key,))},
    )


async def _until_ready(service: Service) -> None:
    await eventually(lambda: bool(service.ready()))


async def eventually(true: Callable[[], bool], within_s: float = _DEADLINE_S) -> None:
    """Return once it is true."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.01)


@pytest.fixture
def wait_until() -> Callable[[Callable[[], Awaitable[bool]], float], Awaitable[None]]:
    """Asks again and again until the answer is yes; fails after so many seconds."""

    async def run(asked: Callable[[], Awaitable[bool]], within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while not await asked():
            assert time.monotonic() < deadline, "not in time"
            await asyncio.sleep(0.01)

    return run


@pytest.fixture
def refused() -> Callable[[Awaitable[object]], Awaitable[ServiceError]]:
    """Awaits a call that must fail; returns the error as a caller sees it."""

    async def run(call: Awaitable[object]) -> ServiceError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        return ServiceError.from_rpc_error(caught.value)

    return run
