"""Who acts in the demonstration: the platform, and an administrator and an agent key in each tenant."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import grpc

from tlsy.contracts.identity.v1 import identity_pb2, identity_pb2_grpc
from tlsy.contracts.ingestion.v1 import ingestion_pb2, ingestion_pb2_grpc
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2, rules_engine_pb2_grpc
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2, tenant_registry_pb2_grpc
from tlsy.rpc.channel import CallPolicy, dial_bearer
from tlsy.runtime.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from google.protobuf.descriptor import ServiceDescriptor

    from examples.demo.processes import Running

T = TypeVar("T")

_RENEW_BEFORE_S: Final = 60
#: A machine that does much else is waited for.
_WITHIN_S: Final = 60.0
_POLICY: Final = CallPolicy(timeout_s=_WITHIN_S)
_SLOW: Final = frozenset({grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE})
#: So identity refuses credentials of a tenant that is new to a replica, which may be a moment behind: without
#: a token nobody makes it ask, or is told which tenants there are.
_UNTOLD: Final = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.FAILED_PRECONDITION})

IDENTITY: Final = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"]
INGESTION: Final = ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"]
REGISTRY: Final = tenant_registry_pb2.DESCRIPTOR.services_by_name["TenantRegistryService"]
RULES: Final = rules_engine_pb2.DESCRIPTOR.services_by_name["RulesEngineService"]


class Session:
    """Stubs of all services under one principal's token, renewed when it gets old."""

    def __init__(self, running: Running, renew: Callable[[], Awaitable[identity_pb2.Token]] | None) -> None:
        self._running = running
        self._renew = renew
        self._token = ""
        self._good_until = 0.0
        self._lock = asyncio.Lock()
        self._channels: list[grpc.aio.Channel] = []
        self.registry = tenant_registry_pb2_grpc.TenantRegistryServiceStub(
            self._dial("tenant-registry", REGISTRY)
        )
        self.identity = identity_pb2_grpc.IdentityServiceStub(self._dial("identity", IDENTITY))
        self.ingestion = ingestion_pb2_grpc.IngestionServiceStub(self._dial("ingestion", INGESTION))
        self.rules = rules_engine_pb2_grpc.RulesEngineServiceStub(self._dial("rules-engine", RULES))

    async def token(self) -> str:
        """The bearer token."""
        if self._renew is None:
            return ""
        async with self._lock:
            if time.monotonic() >= self._good_until:
                token = await self._renew()
                self._token = token.access_token
                self._good_until = time.monotonic() + token.expires_in.ToSeconds() - _RENEW_BEFORE_S
            return self._token

    async def close(self) -> None:
        """Closes its channels."""
        for channel in self._channels:
            await channel.close()

    def _dial(self, service: str, descriptor: ServiceDescriptor) -> grpc.aio.Channel:
        channel = dial_bearer(
            self._running.services[service],
            descriptor,
            self.token if self._renew is not None else None,
            clock=SystemClock(),
            random=os.urandom,
            policy=_POLICY,
        )
        self._channels.append(channel)
        return cast("grpc.aio.Channel", NamedChannel(channel, service))


class NamedChannel:
    """What the stubs need of a channel; errors name the call."""

    def __init__(self, channel: grpc.aio.Channel, service: str) -> None:
        self._channel = channel
        self._service = service

    def unary_stream(self, path: str, **how: Any) -> Any:
        """As of a channel."""
        return self._channel.unary_stream(path, **how)

    def unary_unary(self, path: str, **how: Any) -> Callable[..., Awaitable[Any]]:
        """As of a channel."""
        call = self._channel.unary_unary(path, **how)

        async def ask(request: Any, **options: Any) -> Any:
            try:
                return await call(request, **options)
            except grpc.aio.AioRpcError as error:
                error.add_note(f"{self._service}, {path.rpartition('/')[2]}{_tenant_of(request)}")
                raise

        return ask


def _tenant_of(request: Any) -> str:
    named = (getattr(request, field, "") for field in ("parent", "name", "tenant", "target_tenant"))
    return next((f" for {name}" for name in named if name and isinstance(name, str)), "")


class Principals:
    """Opens sessions; keeps the passwords and keys that it made in a file of its own, mode 0600."""

    def __init__(self, running: Running, kept: Path) -> None:
        self._running = running
        self._kept = kept
        self._secrets: dict[str, dict[str, str]] = json.loads(kept.read_text()) if kept.exists() else {}
        self._public = Session(running, None)
        self._sessions: list[Session] = [self._public]

    def platform(self) -> Session:
        """The platform's administrator, by its API key."""
        return self._by_key(self._running.api_key_file.read_text(encoding="utf-8").strip())

    async def administrator(self, slug: str, platform: Session) -> Session:
        """The administrator of a tenant, made by the platform the first time."""
        name, email = f"tenants/{slug}", f"admin@{slug}.example"
        if "password" not in self._secrets.setdefault(slug, {}):
            password = secrets.token_urlsafe(18)
            onboarding = await self._exchanged(name, platform)
            asked = identity_pb2.CreateUserRequest(
                parent=name,
                user=identity_pb2.User(email=email, display_name="Administrator"),
                password=password,
            )
            user = await onboarding.identity.CreateUser(asked)
            binding = identity_pb2.RoleBinding(principal=user.name, role="client-admin")
            request = identity_pb2.CreateRoleBindingRequest(parent=name, role_binding=binding)
            await onboarding.identity.CreateRoleBinding(request)
            self._keep(slug, "password", password)
        password = self._secrets[slug]["password"]

        async def log_in() -> identity_pb2.Token:
            request = identity_pb2.LogInRequest(tenant=name, email=email, password=password)
            return (await eventually(lambda: self._public.identity.LogIn(request), passing=_UNTOLD)).token

        return self._open(log_in)

    async def agent_key(self, slug: str, administrator: Session) -> Path:
        """A file with the key of the tenant's agent, made the first time."""
        if "agent_key" not in self._secrets[slug]:
            request = identity_pb2.CreateApiKeyRequest(
                parent=f"tenants/{slug}", display_name="demonstration", role="agent"
            )
            made = await administrator.identity.CreateApiKey(request)
            self._keep(slug, "agent_key", made.secret)
        path = self._kept.with_name(f"{slug}.key")
        _write_secret(path, self._secrets[slug]["agent_key"])
        return path

    def agent(self, slug: str) -> Session:
        """The tenant's agent."""
        return self._by_key(self._secrets[slug]["agent_key"])

    async def close(self) -> None:
        """Closes every session."""
        for session in self._sessions:
            await session.close()

    def _by_key(self, api_key: str) -> Session:
        async def exchange() -> identity_pb2.Token:
            request = identity_pb2.ExchangeApiKeyRequest(api_key=api_key)
            asked = await eventually(lambda: self._public.identity.ExchangeApiKey(request), passing=_UNTOLD)
            return asked.token

        return self._open(exchange)

    async def _exchanged(self, name: str, platform: Session) -> Session:
        request = identity_pb2.ExchangeTokenRequest(target_tenant=name, reason="demonstration")
        answer = await eventually(lambda: platform.identity.ExchangeToken(request))

        async def once() -> identity_pb2.Token:
            return answer.token

        return self._open(once)

    def _open(self, renew: Callable[[], Awaitable[identity_pb2.Token]]) -> Session:
        session = Session(self._running, renew)
        self._sessions.append(session)
        return session

    def _keep(self, slug: str, key: str, value: str) -> None:
        self._secrets[slug][key] = value
        _write_secret(self._kept, json.dumps(self._secrets))


async def eventually(ask: Callable[[], Awaitable[T]], *, passing: frozenset[grpc.StatusCode] = _SLOW) -> T:
    """Asks until a slow machine has the time. What is asked must do no harm when it is done twice."""
    deadline = time.monotonic() + _WITHIN_S
    while True:
        try:
            return await ask()
        except grpc.aio.AioRpcError as error:
            if error.code() not in passing or time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.05)


def _write_secret(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
