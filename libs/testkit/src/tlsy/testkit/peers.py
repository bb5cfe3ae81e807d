"""The registry and identity as another service meets them: two gRPC servers on unix sockets, and real keys.

For tests of one whole service without the others. What the peers answer is what the test put into the
catalogue and revoked; tokens are signed with the key whose public half the identity here gives out.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from grpc import StatusCode, aio

from tlsy.contracts.identity.v1 import identity_pb2, identity_pb2_grpc
from tlsy.contracts.tenant_registry.v1 import tenant_pb2, tenant_registry_pb2, tenant_registry_pb2_grpc
from tlsy.rpc.channel import dial_bearer
from tlsy.rpc.keys import generate_key, jwks_of
from tlsy.rpc.permissions import RoleBinding
from tlsy.rpc.tokens import IDENTITY_ISSUER, SUITE_AUDIENCE, TokenClaims, issue_token
from tlsy.runtime.brokers import Brokers
from tlsy.runtime.clock import SystemClock
from tlsy.runtime.host import Host
from tlsy.runtime.ids import PrincipalName, Uuid7
from tlsy.runtime.telemetry import open_telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from google.protobuf.descriptor import ServiceDescriptor

    from tlsy.runtime.host import Role
    from tlsy.tenancy.catalog import TenantEntry
    from tlsy.testkit.installation import Installation

    _Exchanged = identity_pb2.ExchangeApiKeyResponse

#: Between looks whether the registry is still away.
_LOOK_S: Final = 0.02
_PEERS: Final = ("tenant-registry", "identity")
_NO_STATE: Final = tenant_pb2.TenantState.ValueType(99)


def catalog_entry(entry: TenantEntry) -> tenant_registry_pb2.CatalogEntry:
    """The message that tells of a tenant."""
    return tenant_registry_pb2.CatalogEntry(
        tenant_id=str(entry.tenant_id),
        slug=entry.slug,
        country=entry.country,
        parent_id=str(entry.parent_id) if entry.parent_id else "",
        ancestor_ids=[str(ancestor) for ancestor in entry.ancestors],
        sector_profile=tenant_pb2.SectorProfile.Value(f"SECTOR_PROFILE_{entry.sector_profile.upper()}"),
        isolation_mode=tenant_pb2.IsolationMode.Value(f"ISOLATION_MODE_{entry.mode}"),
        state=tenant_pb2.TenantState.Value(f"TENANT_STATE_{entry.state}"),
        epoch=entry.epoch,
        placement=tenant_pb2.Placement(
            cluster=entry.placement.cluster,
            database=entry.placement.database,
            schema=entry.placement.schema,
        ),
        modules=sorted(entry.modules),
        entitlements=dict(entry.entitlements),
        provider_access=tenant_pb2.ProviderAccess.Value(f"PROVIDER_ACCESS_{entry.provider_access}"),
        time_zone=entry.time_zone,
        version=entry.version,
    )


class _Registry(tenant_registry_pb2_grpc.TenantRegistryServiceServicer):
    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    async def SnapshotCatalog(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802  the proto's
        catalog = self._installation.catalog
        while catalog.away:  # noqa: ASYNC110 - a test sets it, and knows of no event
            await asyncio.sleep(_LOOK_S)
        entries = [catalog_entry(entry) for entry in catalog.entries()]
        for entry in entries:
            if UUID(entry.tenant_id) in catalog.unreadable:
                entry.state = _NO_STATE
        yield tenant_registry_pb2.SnapshotCatalogResponse(entries=entries)


class _Identity(identity_pb2_grpc.IdentityServiceServicer):
    def __init__(
        self,
        jwks: str,
        keys: Mapping[str, Callable[[Sequence[str]], _Exchanged]],
        revocations: Sequence[identity_pb2.Revocation],
    ) -> None:
        self._jwks = jwks
        self._keys = keys
        self._revocations = revocations

    async def ExchangeApiKey(self, request: Any, context: Any) -> Any:  # noqa: N802  the proto's
        exchange = self._keys.get(request.api_key)
        if exchange is None:
            await context.abort(StatusCode.UNAUTHENTICATED, "This API key is not good.")
            raise AssertionError
        return exchange(request.audience or [SUITE_AUDIENCE])

    async def GetJwks(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802  the proto's
        return identity_pb2.GetJwksResponse(jwks=self._jwks)

    async def ListRevocations(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802  the proto's
        return identity_pb2.ListRevocationsResponse(revocations=self._revocations)


class Peers:
    """What surrounds the service under test. Made by `peers`."""

    def __init__(self, installation: Installation, brokers: str, folder: Path) -> None:
        self._installation = installation
        self._brokers = brokers
        self._folder = folder
        self._key = generate_key()
        self._service_keys = {
            name: generate_key() for name in (*_PEERS, "ingestion", "rules-engine", "audit-log", "billing")
        }
        self._clock = SystemClock()
        self._ids = Uuid7(self._clock, os.urandom)
        self._hosts = 0
        self._keys: dict[str, Callable[[Sequence[str]], _Exchanged]] = {}
        self._revocations: list[identity_pb2.Revocation] = []
        self._channels: list[aio.Channel] = []

    def host(self, service: str, role: Role = "all") -> Host:
        """What a process lends to one replica of `service`; each has a socket of its own."""
        self._hosts += 1
        server = self._installation.server
        address = server.address("")
        return Host(
            service=service,
            role=role,
            clock=self._clock,
            random=os.urandom,
            ids=self._ids,
            telemetry=open_telemetry(service),
            listen=f"unix:{self._folder / f's{self._hosts}'}",
            peers={name: self.address(name) for name in _PEERS},
            clusters={
                self._installation.control.cluster: (
                    f"postgresql://:{server.password}@localhost:{address.port}?host={address.host}"
                )
            },
            control_cluster=self._installation.control.cluster,
            control_database=self._installation.control.database,
            brokers=Brokers(self._brokers),
            service_key=self._service_keys[service].private_jwk,
            trust={name: jwks_of((key,)) for name, key in self._service_keys.items()},
        )

    def token(
        self,
        tenant: TenantEntry,
        *roles: str,
        principal: str = "",
        lifetime_s: float = 600,
        audience: Sequence[str] = (SUITE_AUDIENCE,),
    ) -> str:
        """A token of a principal of the tenant with these roles in every module."""
        now = self._clock.now().timestamp()
        claims = TokenClaims(
            issuer=IDENTITY_ISSUER,
            principal=PrincipalName(principal or f"tenants/{tenant.slug}/apiKeys/{tenant.tenant_id}"),
            tenant_id=tenant.tenant_id,
            slug=tenant.slug,
            audience=tuple(audience),
            roles=tuple(RoleBinding(role) for role in roles),
            issued_at=min(now, now + lifetime_s - 1),
            expires_at=now + lifetime_s,
            token_id=str(self._ids()),
            key_id=self._key.kid,
        )
        return issue_token(self._key, claims)

    def api_key(self, tenant: TenantEntry, *roles: str, lifetime_s: float = 600) -> str:
        """An API key that the identity here knows; its tokens are for what the caller asked."""
        key, key_id = f"tlsy_{tenant.tenant_id.hex}_{self._ids().hex}_secret", self._ids()
        name = f"tenants/{tenant.slug}"
        principal = f"{name}/apiKeys/{key_id}"

        def exchange(audience: Sequence[str]) -> _Exchanged:
            token = self.token(
                tenant, *roles, principal=principal, lifetime_s=lifetime_s, audience=tuple(audience)
            )
            answer = identity_pb2.ExchangeApiKeyResponse(tenant=name, principal=principal)
            answer.token.access_token = token
            answer.token.expires_in.FromMilliseconds(round(lifetime_s * 1000))
            return answer

        self._keys[key] = exchange
        return key

    def revoke(self, tenant: TenantEntry, principal: str) -> None:
        """The principal's tokens are refused by services that start from now on."""
        now_s = int(self._clock.now().timestamp())
        revocation = identity_pb2.Revocation(tenant_id=str(tenant.tenant_id), principal=principal)
        revocation.revoke_time.FromSeconds(now_s)
        revocation.expire_time.FromSeconds(now_s + 3600)
        self._revocations.append(revocation)

    def address(self, peer: str) -> str:
        """Where "tenant-registry" or "identity" listens here; a gRPC target."""
        return f"unix:{self._folder / peer}"

    def dial(self, host: Host, descriptor: ServiceDescriptor, token: str) -> aio.Channel:
        """A channel to the replica that has `host`, with this token; closed with the peers."""

        async def bearer() -> str:
            return token

        channel = dial_bearer(host.listen, descriptor, bearer, clock=self._clock, random=os.urandom)
        self._channels.append(channel)
        return channel

    async def serve(self) -> list[aio.Server]:
        """Starts both servers."""
        registry, identity = aio.server(), aio.server()
        tenant_registry_pb2_grpc.add_TenantRegistryServiceServicer_to_server(
            _Registry(self._installation),  # type: ignore[abstract]  # all that a service asks
            registry,
        )
        identity_pb2_grpc.add_IdentityServiceServicer_to_server(
            _Identity(jwks_of((self._key,)), self._keys, self._revocations),  # type: ignore[abstract]  # all that a service asks
            identity,
        )
        for name, server in zip(_PEERS, (registry, identity), strict=True):
            server.add_insecure_port(self.address(name))
            await server.start()
        return [registry, identity]

    async def close(self) -> None:
        """Closes every channel that was dialled."""
        for channel in self._channels:
            await channel.close()


@asynccontextmanager
async def peers(installation: Installation, brokers: str) -> AsyncIterator[Peers]:
    """The peers of one test, running."""
    with tempfile.TemporaryDirectory(prefix="tk") as folder:
        around = Peers(installation, brokers, Path(folder))
        servers = await around.serve()
        try:
            yield around
        finally:
            await around.close()
            for server in servers:
                await server.stop(0)
