"""A real server on a unix socket, with real keys and test servicers behind the interceptor."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import grpc
import pytest

from tlsy.contracts.identity.v1 import identity_pb2, identity_pb2_grpc
from tlsy.contracts.ingestion.v1 import ingestion_pb2, ingestion_pb2_grpc
from tlsy.contracts.tenant_registry.v1 import tenant_pb2, tenant_registry_pb2, tenant_registry_pb2_grpc
from tlsy.rpc.call import Call, current_call
from tlsy.rpc.errors import ServiceError
from tlsy.rpc.keys import Jwks, SigningKey, generate_key, jwks_of
from tlsy.rpc.permissions import RoleBinding
from tlsy.rpc.revocations import DenyList
from tlsy.rpc.server import RpcServer, Served, ServerLimits, build_server
from tlsy.rpc.tokens import IDENTITY_ISSUER, ServiceTokens, TokenClaims, TokenVerifier, issue_token
from tlsy.runtime.brokers import Brokers
from tlsy.runtime.clock import SystemClock
from tlsy.runtime.host import Host
from tlsy.runtime.ids import PLATFORM_SLUG, PLATFORM_TENANT_ID, PrincipalName, Slug, TenantId, Uuid7
from tlsy.runtime.service import Readiness
from tlsy.runtime.telemetry import open_telemetry
from tlsy.tenancy.catalog import TenantEntry
from tlsy.tenancy.context import IsolationMode, Placement, TenantState
from tlsy.testkit.catalog import StaticCatalog

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from google.protobuf.descriptor import ServiceDescriptor

    from tlsy.rpc.denials import DeniedCalls

ACME = TenantId(UUID("11111111-1111-7111-8111-111111111111"))
OTHER = TenantId(UUID("22222222-2222-7222-8222-222222222222"))
ALICE = PrincipalName("tenants/acme/users/0b6d7a39-6a68-4d7c-8d61-000000000001")


def entry(tenant_id: TenantId, slug: str, **changes: Any) -> TenantEntry:
    plain = TenantEntry(
        tenant_id=tenant_id,
        slug=Slug(slug),
        parent_id=None,
        ancestors=(),
        country="fr",
        state=TenantState.ACTIVE,
        epoch=1,
        mode=IsolationMode.SHARED,
        placement=Placement("eu-1", "tlsy_tenants", "shared"),
        modules=frozenset({"supervision", "expert-rules"}),
        entitlements={},
        version=1,
        sector_profile="sme",
        time_zone="Europe/Paris",
    )
    return replace(plain, **changes)


class RecordedDenials:
    """A DenialSink that a test reads."""

    def __init__(self) -> None:
        self.calls: list[DeniedCalls] = []

    def denied(self, call: DeniedCalls) -> None:
        self.calls.append(call)


class RecordedCrossings:
    """Crossings that a test reads; `away` is why they are not recorded, `hold` what they wait for."""

    def __init__(self) -> None:
        self.reads: list[tuple[str, str]] = []
        self.away: Exception | None = None
        self.hold: asyncio.Event | None = None

    async def crossed(self, call: Call, resource: str) -> None:
        if self.away is not None:
            raise self.away
        if self.hold is not None:
            await self.hold.wait()
        self.reads.append((call.method.rpartition("/")[2], resource))


class Identity(identity_pb2_grpc.IdentityServiceServicer):
    """Answers as the test tells it, and keeps the calls that reached it."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.act: Callable[[], Awaitable[None]] | None = None

    async def _reached(self) -> None:
        self.calls.append(current_call())
        if self.act is not None:
            await self.act()

    async def GetUser(self, request, context):  # noqa: N802  the proto's
        await self._reached()
        return identity_pb2.User(name=request.name)

    async def CreateUser(self, request, context):  # noqa: N802  the proto's
        await self._reached()
        return identity_pb2.User(name=f"{request.parent}/users/new")

    async def CreateRoleBinding(self, request, context):  # noqa: N802  the proto's
        await self._reached()
        return request.role_binding

    async def ExchangeToken(self, request, context):  # noqa: N802  the proto's
        await self._reached()
        return identity_pb2.ExchangeTokenResponse()

    async def LogIn(self, request, context):  # noqa: N802  the proto's
        await self._reached()
        return identity_pb2.LogInResponse()

    async def ListRevocations(self, request, context):  # noqa: N802  the proto's
        await self._reached()
        return identity_pb2.ListRevocationsResponse()


class Registry(tenant_registry_pb2_grpc.TenantRegistryServiceServicer):
    def __init__(self) -> None:
        self.act: Callable[[], Awaitable[None]] | None = None

    async def GetTenant(self, request, context):  # noqa: N802  the proto's
        return tenant_pb2.Tenant(name=request.name)

    async def SnapshotCatalog(self, request, context):  # noqa: N802  the proto's
        yield tenant_registry_pb2.SnapshotCatalogResponse(resume_token="1")
        if self.act is not None:
            await self.act()

    async def SuspendTenant(self, request, context):  # noqa: N802  the proto's
        return tenant_pb2.Tenant(name=request.name)


class Ingestion(ingestion_pb2_grpc.IngestionServiceServicer):
    def __init__(self) -> None:
        self.begin: Callable[[], object] = lambda: None
        self.act: Callable[[], Awaitable[None]] | None = None

    async def IngestEvents(self, request, context):  # noqa: N802  the proto's
        if self.act is not None:
            await self.act()
        return ingestion_pb2.IngestEventsResponse(
            outcomes=[ingestion_pb2.OUTCOME_ACCEPTED] * len(request.events)
        )

    async def TailEvents(self, request, context):  # noqa: N802  the proto's
        self.begin()
        yield ingestion_pb2.TailEventsResponse(missed=1)
        if self.act is not None:
            await self.act()
        yield ingestion_pb2.TailEventsResponse(missed=2)


SERVICES: dict[str, tuple[ServiceDescriptor, Callable[[Any, grpc.aio.Server], None]]] = {
    "identity": (
        identity_pb2.DESCRIPTOR.services_by_name["IdentityService"],
        identity_pb2_grpc.add_IdentityServiceServicer_to_server,
    ),
    "registry": (
        tenant_registry_pb2.DESCRIPTOR.services_by_name["TenantRegistryService"],
        tenant_registry_pb2_grpc.add_TenantRegistryServiceServicer_to_server,
    ),
    "ingestion": (
        ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"],
        ingestion_pb2_grpc.add_IngestionServiceServicer_to_server,
    ),
}


@dataclass
class World:
    """Everything that a call meets, each part open to the test."""

    directory: Path
    key: SigningKey = field(default_factory=generate_key)
    service_key: SigningKey = field(default_factory=generate_key)
    catalog: StaticCatalog = field(default_factory=StaticCatalog)
    denials: RecordedDenials = field(default_factory=RecordedDenials)
    crossings: RecordedCrossings = field(default_factory=RecordedCrossings)
    identity: Identity = field(default_factory=Identity)
    registry: Registry = field(default_factory=Registry)
    ingestion: Ingestion = field(default_factory=Ingestion)
    clock: SystemClock = field(default_factory=SystemClock)
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.catalog.put(entry(ACME, "acme"))
        self.catalog.put(entry(OTHER, "other"))
        self.catalog.put(entry(PLATFORM_TENANT_ID, PLATFORM_SLUG))
        self.deny_list = DenyList(self.clock)
        self.deny_list.complete = True
        self.jwks = Jwks(self._fetch, self.clock)
        self.host = Host(
            service="identity",
            role="all",
            clock=self.clock,
            random=os.urandom,
            ids=Uuid7(self.clock, os.urandom),
            telemetry=open_telemetry("identity").for_service("identity"),
            listen=f"unix:{self.directory}/s",
            peers={"identity": f"unix:{self.directory}/s"},
            clusters={},
            control_cluster="control",
            brokers=Brokers(""),
            service_key=self.service_key.private_jwk,
            trust={"ingestion": jwks_of((self.service_key,))},
        )

    async def _fetch(self) -> tuple[str, int]:
        return jwks_of((self.key,)), 0

    def server(
        self, limits: ServerLimits | None = None, ready: Callable[[], Readiness] | None = None
    ) -> RpcServer:
        servicers = {"identity": self.identity, "registry": self.registry, "ingestion": self.ingestion}
        return build_server(
            self.host,
            [Served(*SERVICES[name], servicer) for name, servicer in servicers.items()],
            verifier=self.verifier(),
            catalog=self.catalog,
            denials=self.denials,
            crossings=self.crossings,
            ready=ready or (lambda: Readiness(self.missing)),
            limits=limits,
        )

    def verifier(self) -> TokenVerifier:
        return TokenVerifier(
            "identity", keys=self.jwks, trust=self.host.trust, deny_list=self.deny_list, clock=self.clock
        )

    def claims(self, *roles: str | RoleBinding, **changes: Any) -> TokenClaims:
        now = self.clock.now().timestamp()
        plain = TokenClaims(
            issuer=IDENTITY_ISSUER,
            principal=ALICE,
            tenant_id=ACME,
            slug=Slug("acme"),
            audience=("identity",),
            roles=tuple(RoleBinding(role) if isinstance(role, str) else role for role in roles),
            issued_at=now,
            expires_at=now + 600,
            token_id="t",
            key_id=self.key.kid,
        )
        return replace(plain, **changes)

    def token(self, *roles: str | RoleBinding, **changes: Any) -> str:
        return issue_token(self.key, self.claims(*roles, **changes))

    def platform_token(self, *roles: str) -> str:
        return self.token(*roles, tenant_id=PLATFORM_TENANT_ID, slug=PLATFORM_SLUG)

    def service_tokens(self) -> ServiceTokens:
        return ServiceTokens(
            "ingestion", self.service_key.private_jwk, clock=self.clock, new_id=self.host.ids
        )


@dataclass
class Client:
    """Plain stubs, without our own client side."""

    channel: grpc.aio.Channel

    def __post_init__(self) -> None:
        self.identity = identity_pb2_grpc.IdentityServiceStub(self.channel)
        self.registry = tenant_registry_pb2_grpc.TenantRegistryServiceStub(self.channel)
        self.ingestion = ingestion_pb2_grpc.IngestionServiceStub(self.channel)


async def refused(call: Awaitable[object]) -> ServiceError:
    """The error that the caller of a refused call gets."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return ServiceError.from_rpc_error(raised.value)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)
