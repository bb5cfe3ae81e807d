"""The suite with twelve tenants in it, each full of canaries: strings that nobody else may ever read."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from aiokafka import AIOKafkaProducer
from pydantic import SecretStr

from tlsy.contracts.events import INGEST_TOPIC
from tlsy.contracts.identity.v1 import identity_pb2 as identity
from tlsy.contracts.ingestion.events.v1 import events_pb2
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as ingestion
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as rules
from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as registry
from tlsy.identity.app import build as build_identity
from tlsy.identity.settings import IdentitySettings, new_keys_file
from tlsy.ingestion.app import build as build_ingestion
from tlsy.ingestion.settings import IngestionSettings
from tlsy.rules_engine.app import build as build_rules_engine
from tlsy.rules_engine.settings import RulesEngineSettings
from tlsy.tenant_registry.app import build as build_tenant_registry
from tlsy.tenant_registry.settings import TenantRegistrySettings

from .calls import BY_NAME, Client
from .names import REQUESTS, Names, event, rule_document

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from tlsy.testkit.suite import Suite

_DEADLINE_S: Final = 60.0
_ROOT: Final = "root@platform.example"
_ROOT_PASSWORD: Final = "the provider's own passphrase"
_MODULES: Final = ("supervision", "expert-rules")
_LISTINGS: Final = tuple(name for name in REQUESTS if name.startswith("List") or name == "QueryEvents")
#: Slug to isolation mode and parent.
TENANTS: Final[Mapping[str, tuple[str, str]]] = {
    **{f"shared-{n}": ("SHARED", "") for n in range(5)},
    **{f"schema-{n}": ("SCHEMA", "") for n in range(3)},
    "dedicated-0": ("DEDICATED", ""),
    "group": ("DEDICATED", ""),
    "group-shared": ("SHARED", "group"),
    "group-schema": ("SCHEMA", "group"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Canaries:
    """What betrays a tenant.

    Attributes:
        data: in events, rules and incidents.
        name: in the tenant's own display name, which its ancestors and the provider see.
        person: in people's e-mail addresses and in the names of people and keys.
        secret: in passwords.
        key: the secret of its API key.
    """

    data: str
    name: str
    person: str
    secret: str
    key: str

    @property
    def private(self) -> tuple[str, ...]:
        """Seen by nobody outside the tenant."""
        return (self.data, self.person, self.secret, self.key)

    @property
    def personal(self) -> tuple[str, ...]:
        """Not even in the tenant's own events and log lines."""
        return (self.person, self.secret, self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One tenant, its canaries, and a token of each kind of principal."""

    slug: str
    tenant_id: UUID
    mode: str
    parent: str
    canaries: Canaries
    names: Names
    tokens: Mapping[str, str]


class World:
    """The suite and who lives in it."""

    def __init__(self, suite: Suite, client: Client) -> None:
        self.suite = suite
        self.client = client
        self.tenants: dict[str, Tenant] = {}
        self.root = ""

    def may_see(self, tenant: Tenant, service: str) -> frozenset[str]:
        """Canaries that an answer of this service to a principal of the tenant may hold."""
        own = {*tenant.canaries.private, tenant.canaries.name}
        if service == "tenant-registry":
            own |= {each.canaries.name for each in self.tenants.values() if each.parent == tenant.slug}
        return frozenset(own)

    def leaked(self, text: bytes, allowed: frozenset[str]) -> list[str]:
        """Whose canaries are in the text that must not be."""
        return [
            f"{tenant.slug}: {canary}"
            for tenant in self.tenants.values()
            for canary in (*tenant.canaries.private, tenant.canaries.name)
            if canary not in allowed and canary.encode() in text
        ]

    async def settle(self) -> None:
        """Onboard all tenants, once the provider's first administrator is there."""
        await until(self._provider_is_there)
        self.root = await self._log_in("tenants/platform", _ROOT, _ROOT_PASSWORD)
        onboarding = Onboarding(self)
        for below in (False, True):
            slugs = [slug for slug, (_, parent) in TENANTS.items() if bool(parent) is below]
            made = await asyncio.gather(*(onboarding.run(slug, *TENANTS[slug]) for slug in slugs))
            self.tenants |= {tenant.slug: tenant for tenant in made}

    async def _provider_is_there(self) -> bool:
        return bootstrap_key_file(self.suite).exists()

    async def _log_in(self, tenant: str, email: str, password: str) -> str:
        request = identity.LogInRequest(tenant=tenant, email=email, password=password)
        token: str = (await self.client.get("LogIn", request)).token.access_token
        return token


class Onboarding:
    """Makes a tenant as its people would, by RPCs alone."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._client = world.client

    async def run(self, slug: str, mode: str, parent: str = "") -> Tenant:
        """The tenant; it is not added to the world."""
        by = self._world.tenants[parent].tokens["client-admin"] if parent else self._world.root
        marks = Canaries(**{kind: f"c{kind[0]}{secrets.token_hex(8)}" for kind in Canaries.__slots__})
        operation, made = await self._create(slug, mode, parent, marks, by)
        exchange = identity.ExchangeTokenRequest(target_tenant=made.name, reason="onboarding")
        acting = (await self._client.get("ExchangeToken", exchange, self._world.root)).token.access_token
        admin, binding, admin_token = await self._person(made.name, "client-admin", marks, acting)
        _, _, operator_token = await self._person(made.name, "operator", marks, acting)
        key, key_secret, agent_token = await self._key(made.name, marks, admin_token)
        marks = replace(marks, key=key_secret.rpartition("_")[2])
        since_us = time.time_ns() // 1000 - 60_000_000
        versions = await self._rule(made.name, marks, admin_token)
        await self._events(made.name, marks, since_us, agent_token)
        await self._refused_records(made.name, marks, since_us, agent_token, admin_token)
        incident = await self._incident(made.name, admin_token)
        exchanged = await self._client.get("ExchangeToken", exchange, by)
        names = Names(
            tenant=made.name,
            user=admin.name,
            binding=binding,
            key=key,
            rule=f"{made.name}/rules/hot",
            versions=versions,
            incident=incident,
            operation=operation,
            email=admin.email,
            key_ids=(key_secret.split("_")[1], key_secret.split("_")[2]),
            since_us=since_us,
            password=marks.secret,
            secret=marks.key,
            etags=await self._etags(made.name, admin.name, admin_token),
        )
        return Tenant(
            slug=slug,
            tenant_id=UUID(made.tenant_id),
            mode=mode,
            parent=parent,
            canaries=marks,
            names=replace(names, page_tokens=await self._page_tokens(names, admin_token)),
            tokens={
                "client-admin": admin_token,
                "operator": operator_token,
                "agent": agent_token,
                "exchanged": exchanged.token.access_token,
            },
        )

    async def _create(
        self, slug: str, mode: str, parent: str, marks: Canaries, by: str
    ) -> tuple[str, tenant_pb2.Tenant]:
        asked = tenant_pb2.Tenant(
            display_name=marks.name,
            country="countries/fr",
            parent=f"tenants/{parent}" if parent else "",
            sector_profile=tenant_pb2.SECTOR_PROFILE_SME,
            isolation_mode=tenant_pb2.IsolationMode.Value(f"ISOLATION_MODE_{mode}"),
            tier=tenant_pb2.TIER_BUSINESS if parent else tenant_pb2.TIER_ENTERPRISE,
            provider_access=tenant_pb2.PROVIDER_ACCESS_FULL,
            modules=_MODULES,
        )
        request = registry.CreateTenantRequest(tenant_slug=slug, tenant=asked)
        operation = await self._client.get("CreateTenant", request, by)
        wait = registry.WaitOperationRequest(name=operation.name)
        while not operation.done:
            operation = await self._client.get("WaitOperation", wait, by)
        assert operation.HasField("response"), operation
        made = tenant_pb2.Tenant()
        operation.response.Unpack(made)
        return operation.name, made

    async def _person(
        self, tenant: str, role: str, marks: Canaries, by: str
    ) -> tuple[identity.User, str, str]:
        """A user, the name of its role binding, and its token."""
        user = identity.User(email=f"{role}@{marks.person}.example", display_name=f"{role} {marks.person}")
        create = identity.CreateUserRequest(parent=tenant, user=user, password=marks.secret)
        made = await self._client.get("CreateUser", create, by)
        wanted = identity.RoleBinding(principal=made.name, role=role)
        bind = identity.CreateRoleBindingRequest(parent=tenant, role_binding=wanted)
        bound = await self._client.get("CreateRoleBinding", bind, by)
        return made, bound.name, await self._world._log_in(tenant, made.email, marks.secret)

    async def _key(self, tenant: str, marks: Canaries, by: str) -> tuple[str, str, str]:
        """An agent's key: its name, the whole of it, and its token."""
        create = identity.CreateApiKeyRequest(parent=tenant, display_name=f"key {marks.person}", role="agent")
        made = await self._client.get("CreateApiKey", create, by)
        exchange = identity.ExchangeApiKeyRequest(api_key=made.secret)
        token = (await self._client.get("ExchangeApiKey", exchange)).token.access_token
        return made.api_key.name, made.secret, token

    async def _rule(self, tenant: str, marks: Canaries, by: str) -> tuple[str, str]:
        """The same rule name in every tenant, in two versions."""
        versions = []
        for above in (80.0, 90.0):
            document = rule_document(marks.data, above)
            request = rules.PublishRuleRequest(name=f"{tenant}/rules/hot", document=document)
            versions.append((await self._client.get("PublishRule", request, by)).live_version)
        return versions[0], versions[1]

    async def _events(self, tenant: str, marks: Canaries, since_us: int, by: str) -> None:
        """The same event ids in every tenant; the last one opens an incident."""
        sent = [event(number, since_us + number, marks.data) for number in range(1, 4)]
        sent.append(event(4, since_us + 50_000_000, marks.data, value=95.0))
        request = ingestion.IngestEventsRequest(parent=tenant, events=sent)
        answer = await self._client.get("IngestEvents", request, by)
        assert list(answer.outcomes) == [ingestion.OUTCOME_ACCEPTED] * 4, answer

    async def _refused_records(
        self, tenant: str, marks: Canaries, since_us: int, by: str, reader: str
    ) -> None:
        """Two of a producer, each with an event that names its fault after a label; told as outcomes."""
        bad = event(0, since_us, marks.data)
        bad.labels[f"l{marks.data}"] = "x" * 10_000
        value = events_pb2.ProducedEvents(events=[bad]).SerializeToString()
        headers = [("authorization", f"Bearer {by}".encode())]
        producer = AIOKafkaProducer(bootstrap_servers=self._world.suite.brokers)
        await producer.start()
        for _ in range(2):
            await producer.send_and_wait(INGEST_TOPIC, value, headers=headers)
        await producer.stop()
        listing = ingestion.ListIngestOutcomesRequest(parent=tenant)

        async def told() -> bool:
            return len((await self._client.get("ListIngestOutcomes", listing, reader)).outcomes) == 2

        await until(told)

    async def _incident(self, tenant: str, by: str) -> str:
        listing = rules.ListIncidentsRequest(parent=tenant)

        async def opened() -> Any:
            return (await self._client.get("ListIncidents", listing, by)).incidents

        name: str = (await until(opened))[0].name
        return name

    async def _etags(self, tenant: str, user: str, by: str) -> dict[str, str]:
        own = await self._client.get("GetTenant", registry.GetTenantRequest(name=tenant), by)
        person = await self._client.get("GetUser", identity.GetUserRequest(name=user), by)
        rule = await self._client.get("GetRule", rules.GetRuleRequest(name=f"{tenant}/rules/hot"), by)
        return {"tenant": own.etag, "user": person.etag, "rule": rule.etag}

    async def _page_tokens(self, names: Names, by: str) -> dict[str, str]:
        """Of every listing of which there is a second page."""
        found = {}
        for rpc in _LISTINGS:
            answer = await self._client.ask(BY_NAME[rpc], REQUESTS[rpc](names), by)
            token = getattr(answer.message, "next_page_token", "")
            if token:
                found[rpc] = token
        return found


async def until(asked: Callable[[], Awaitable[Any]], within_s: float = _DEADLINE_S) -> Any:
    """The first answer that is true."""
    async with asyncio.timeout(within_s):
        while not (answer := await asked()):
            await asyncio.sleep(0.02)
        return answer


def bootstrap_key_file(suite: Suite) -> Path:
    """Appears when the provider's first administrator has been made."""
    return suite.folder / "bootstrap.key"


async def start_replicas(suite: Suite) -> None:
    """Two of each service in this process."""
    keys = suite.folder / "identity-keys.json"
    keys.write_text(new_keys_file(os.urandom))
    settings = IdentitySettings(
        keys_file=keys,
        bootstrap_admin_email=_ROOT,
        bootstrap_admin_password=SecretStr(_ROOT_PASSWORD),
        bootstrap_key_file=bootstrap_key_file(suite),
        argon2_memory_kib=64,
        argon2_passes=1,
        argon2_queue=1000,
        tenant_failures=100_000,
        # A key may sign two seconds after it was announced.
        jwks_cache_s=1,
        ring_refresh_s=1,
        clock_leeway_s=0,
    )
    common = suite.installation.common.database
    places = TenantRegistrySettings(shared_database=common, first_cluster=suite.installation.common.cluster)
    quick = RulesEngineSettings(tick_s=0.2)
    for replica in range(2):
        await suite.start("tenant-registry", partial(build_tenant_registry, places))
        await suite.start("identity", partial(build_identity, settings))
        await suite.start("ingestion", partial(build_ingestion, IngestionSettings(shard=replica)))
        await suite.start("rules-engine", partial(build_rules_engine, quick))
    await suite.ready()
