"""The servers of a context, and the tokens that they are called with."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc

from tlsy.cli.adapters.failures import failure_of
from tlsy.cli.domain.errors import NotLoggedInError, UsageError
from tlsy.cli.domain.names import slug, tenant_name
from tlsy.cli.domain.tokens import AccessToken, payload
from tlsy.contracts.identity.v1 import identity_pb2, identity_pb2_grpc
from tlsy.contracts.ingestion.v1 import ingestion_pb2, ingestion_pb2_grpc
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2, rules_engine_pb2_grpc
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2, tenant_registry_pb2_grpc
from tlsy.rpc.channel import CallPolicy, dial_bearer
from tlsy.rpc.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from google.protobuf.descriptor import ServiceDescriptor

    from tlsy.cli.adapters.token_cache import TokenCache
    from tlsy.cli.domain.contexts import Context
    from tlsy.cli.domain.errors import CommandError
    from tlsy.runtime.clock import Clock

DESCRIPTORS: Final[Mapping[str, ServiceDescriptor]] = {
    "tenant-registry": tenant_registry_pb2.DESCRIPTOR.services_by_name["TenantRegistryService"],
    "identity": identity_pb2.DESCRIPTOR.services_by_name["IdentityService"],
    "ingestion": ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"],
    "rules-engine": rules_engine_pb2.DESCRIPTOR.services_by_name["RulesEngineService"],
}
_POLICY: Final = CallPolicy(timeout_s=15.0, attempts=3, max_wait_s=5.0)


class GrpcSession:
    """The `Session` port.

    The credential is the context's API key, or what `log_in` got. Tokens are kept between runs; one that is
    for onboarding only serves a single run, and the next gets its own. Registry calls go with the
    credential's own token, since what is above a tenant decides over it; identity, ingestion and rules are
    called with a token of the tenant that is acted in. Where --tenant does not name it, `tell` gets its
    name, once: who forgot the option acts in another one.

    Attributes:
        elsewhere: the tenant that was acted in, if it is not the credential's own.
        onboarding: the token for it is for its first administrator and keys only.
    """

    def __init__(
        self,
        context: Callable[[], Context],
        cache: TokenCache,
        clock: Clock,
        random: Callable[[int], bytes],
        *,
        tenant: str,
        reason: str,
        tell: Callable[[str], None],
    ) -> None:
        self._choose = context
        self._context: Context | None = None
        self._cache = cache
        self._clock = clock
        self._random = random
        self._tenant = tenant
        self._reason = reason
        self._tell = tell
        self._told = False
        self.elsewhere = ""
        self.onboarding = False
        self._channels: dict[tuple[str, bool], grpc.aio.Channel] = {}

    @property
    def context(self) -> Context:
        """The context in use, or the one that was asked for."""
        if self._context is None:
            self._context = self._choose()
        return self._context

    async def tenant(self) -> str:
        """See `Session.tenant`."""
        if self._tenant:
            return tenant_name(self._tenant)
        chosen = self.context.tenant
        tenant = tenant_name(chosen) if chosen else (await self.credential()).tenant
        if not self._told:
            self._told = True
            self._tell(f"in tenant {slug(tenant)}")
        return tenant

    async def registry(self) -> tenant_registry_pb2_grpc.TenantRegistryServiceAsyncStub:
        """See `Session.registry`."""
        channel = await self._authorized("tenant-registry", self.credential)
        return tenant_registry_pb2_grpc.TenantRegistryServiceStub(channel)

    async def identity(self) -> identity_pb2_grpc.IdentityServiceAsyncStub:
        """See `Session.identity`."""
        return identity_pb2_grpc.IdentityServiceStub(await self._authorized("identity", self._acting))

    async def ingestion(self) -> ingestion_pb2_grpc.IngestionServiceAsyncStub:
        """See `Session.ingestion`."""
        return ingestion_pb2_grpc.IngestionServiceStub(await self._authorized("ingestion", self._acting))

    async def rules(self) -> rules_engine_pb2_grpc.RulesEngineServiceAsyncStub:
        """See `Session.rules`."""
        return rules_engine_pb2_grpc.RulesEngineServiceStub(
            await self._authorized("rules-engine", self._acting)
        )

    async def credential(self) -> AccessToken:
        """See `Session.credential`."""
        kept = self._cache.get(self._key("home"), self._now_s())
        if kept is not None:
            return kept
        if not self.context.api_key_file:
            raise NotLoggedInError(
                f"You are not logged in to {self.context.name}, or not any more.",
                "Run: tlsy login (or give the context an API key with --api-key-file).",
            )
        return self._kept(self._key("home"), await self.exchange_api_key())

    async def exchange_api_key(self) -> AccessToken:
        """A new token for the context's API key; not kept.

        Raises:
            NotLoggedInError: the key's file cannot be read.
        """
        request = identity_pb2.ExchangeApiKeyRequest(api_key=self._api_key())
        answer = await self._public_identity().ExchangeApiKey(request)
        return self._token(answer.token, answer.tenant, answer.principal)

    async def log_in(self, tenant: str, email: str, password: str) -> AccessToken:
        """See `Session.log_in`."""
        request = identity_pb2.LogInRequest(tenant=tenant, email=email, password=password)
        answer = await self._public_identity().LogIn(request)
        self.log_out()
        return self._kept(self._key("home"), self._token(answer.token, tenant, answer.principal))

    def log_out(self) -> int:
        """See `Session.log_out`."""
        return self.forget(self.context.name)

    def forget(self, context: str) -> int:
        """See `Session.forget`."""
        return self._cache.forget(context)

    def failure(self, error: grpc.aio.AioRpcError) -> CommandError:
        """See `Session.failure`."""
        return failure_of(
            ServiceError.from_rpc_error(error), self.context, self.elsewhere, onboarding=self.onboarding
        )

    def channel(self, service: str, bearer: Callable[[], Awaitable[str]] | None = None) -> grpc.aio.Channel:
        """A channel to a service of the context; closed with the session."""
        key = (service, bearer is not None)
        if key not in self._channels:
            self._channels[key] = dial_bearer(
                self.context.address(service),
                DESCRIPTORS[service],
                bearer,
                clock=self._clock,
                random=self._random,
                credentials=self._credentials(),
                policy=_POLICY,
            )
        return self._channels[key]

    async def close(self) -> None:
        """Closes every channel."""
        for channel in self._channels.values():
            await channel.close()

    async def _authorized(
        self, service: str, token: Callable[[], Awaitable[AccessToken]]
    ) -> grpc.aio.Channel:
        # Got once before the call, so that what is wrong with the credential is told as that.
        await token()

        async def bearer() -> str:
            return (await token()).text

        return self.channel(service, bearer)

    async def _acting(self) -> AccessToken:
        """A token of the tenant that is acted in."""
        home, tenant = await self.credential(), await self.tenant()
        if tenant == home.tenant:
            return home
        self.elsewhere = tenant
        # Another reason is another entry in the audit logs, which the exchange makes.
        key = (*self._key(tenant), self._reason)
        kept = self._cache.get(key, self._now_s())
        # What onboarding may not, the tenant may have granted meanwhile: each run asks anew.
        if kept is not None and (self.onboarding or not _is_onboarding(kept)):
            return kept
        identity = identity_pb2_grpc.IdentityServiceStub(self.channel("identity"))
        answer = await identity.ExchangeToken(
            identity_pb2.ExchangeTokenRequest(target_tenant=tenant, reason=self._reason),
            metadata=(("authorization", f"Bearer {home.text}"),),
        )
        token = self._kept(key, self._token(answer.token, tenant, home.principal))
        self.onboarding = _is_onboarding(token)
        return token

    def _public_identity(self) -> identity_pb2_grpc.IdentityServiceAsyncStub:
        return identity_pb2_grpc.IdentityServiceStub(self.channel("identity"))

    def _token(self, token: identity_pb2.Token, tenant: str, principal: str) -> AccessToken:
        return AccessToken(
            text=token.access_token,
            tenant=tenant,
            principal=principal,
            expires_at_s=self._now_s() + token.expires_in.ToMilliseconds() / 1000,
        )

    def _kept(self, key: tuple[str, ...], token: AccessToken) -> AccessToken:
        self._cache.put(key, token, self._now_s())
        return token

    def _key(self, purpose: str) -> tuple[str, ...]:
        """Another address, key or user is another identity, whose tokens are not this one's."""
        context = self.context
        kind = ("key", self._api_key()) if context.api_key_file else ("user", context.user)
        source = "\n".join((context.address("identity"), *kind))
        return (context.name, hashlib.sha256(source.encode()).hexdigest()[:16], purpose)

    def _api_key(self) -> str:
        file = self.context.api_key_file
        if not file:
            raise UsageError(
                f"Context {self.context.name} has no API key.", "Give it one with --api-key-file."
            )
        try:
            key = Path(file).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise NotLoggedInError(
                f"The API key in {file} cannot be read.", "Put the key there, readable by you alone."
            ) from error
        if not key:
            raise NotLoggedInError(f"{file} is empty.", "Put the API key there, readable by you alone.")
        return key

    def _credentials(self) -> grpc.ChannelCredentials | None:
        if not self.context.tls:
            return None
        ca_file = self.context.ca_file
        try:
            roots = Path(ca_file).read_bytes() if ca_file else None
        except OSError as error:
            raise UsageError(f"{ca_file} cannot be read.", "Correct the context's tls.ca_file.") from error
        return grpc.ssl_channel_credentials(root_certificates=roots)

    def _now_s(self) -> float:
        return self._clock.now().timestamp()


def _is_onboarding(token: AccessToken) -> bool:
    return any(role == "onboarding" for role, _ in payload(token.text).get("roles", []))
