"""A running suite and the tenants that were made in it, as their people and agents see it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from examples.demo.sessions import Principals, eventually
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as rules
from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as registry
from tlsy.runtime.ids import TenantId
from tlsy.tenancy.context import DEDICATED_SCHEMA, SHARED_SCHEMA, IsolationMode, tenant_schema

from .books import WITHIN_S, Place
from .load import STEP_US, Sender, rule_documents

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from examples.demo.processes import Running
    from examples.demo.sessions import Session
    from tlsy.tenancy.database import ClusterAddress


_POLL_S: Final = 0.02
_MODULES: Final = ("supervision", "expert-rules")


@dataclass(frozen=True, slots=True)
class Databases:
    """The server and the databases that every suite has."""

    server: ClusterAddress
    control: str
    common: str


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant."""

    slug: str
    tenant_id: TenantId
    mode: IsolationMode

    @property
    def name(self) -> str:
        return f"tenants/{self.slug}"


class World:
    """Sessions are of the suite as it runs now; `moved` says that it was started again elsewhere.

    `suffix` ends the names of its tenants, where several worlds are of one suite.
    """

    def __init__(
        self,
        running: Running,
        databases: Databases,
        kept: Path,
        tenants: list[Tenant] | None = None,
        suffix: str = "",
    ) -> None:
        self.began_us = time.time_ns() // 1000
        self.tenants = [] if tenants is None else tenants
        self._kept = kept
        self._suffix = suffix
        self._opened: list[Principals] = []
        self.moved(running, databases)

    def moved(self, running: Running, databases: Databases) -> None:
        """The suite listens elsewhere now."""
        self.running = running
        self.databases = databases
        self._principals = Principals(running, self._kept)
        self._opened.append(self._principals)
        self._agents: dict[str, Session] = {}
        self._administrators: dict[str, Session] = {}
        self.platform = self._principals.platform()

    def elsewhere(self, running: Running) -> World:
        """The same tenants as who calls other replicas sees them."""
        return World(running, self.databases, self._kept, self.tenants)

    async def aclose(self) -> None:
        for principals in self._opened:
            await principals.close()

    async def tenant(self, name: str, mode: IsolationMode) -> Tenant:
        """Made by the platform over RPC, with an administrator and an agent's key."""
        slug = name + self._suffix
        asked = tenant_pb2.Tenant(
            display_name=slug,
            country="countries/fr",
            sector_profile=tenant_pb2.SECTOR_PROFILE_SME,
            isolation_mode=tenant_pb2.IsolationMode.Value(f"ISOLATION_MODE_{mode}"),
            tier=tenant_pb2.TIER_ENTERPRISE,
            provider_access=tenant_pb2.PROVIDER_ACCESS_FULL,
            modules=_MODULES,
        )
        request = registry.CreateTenantRequest(tenant_slug=slug, tenant=asked)
        operation = await self.platform.registry.CreateTenant(request)
        while not operation.done:
            wait = registry.WaitOperationRequest(name=operation.name)
            operation = await self.platform.registry.WaitOperation(wait)
        made = tenant_pb2.Tenant()
        assert operation.response.Unpack(made), operation
        tenant = Tenant(slug, TenantId(UUID(made.tenant_id)), mode)
        self.tenants.append(tenant)
        await self._principals.agent_key(slug, await self.administrator(slug))
        return tenant

    def agent(self, slug: str) -> Session:
        """The tenant's agent."""
        if slug not in self._agents:
            self._agents[slug] = self._principals.agent(slug)
        return self._agents[slug]

    async def administrator(self, slug: str) -> Session:
        """The tenant's administrator."""
        if slug not in self._administrators:
            self._administrators[slug] = await self._principals.administrator(slug, self.platform)
        return self._administrators[slug]

    def sender(self, tenant: Tenant, source: str) -> Sender:
        """Of one source of the tenant."""
        return Sender(tenant.slug, source, self.began_us, lambda: self.agent(tenant.slug))

    async def publish_rules(self, tenant: Tenant, expected: int) -> None:
        """The rules of `rule_documents`."""
        stub = (await self.administrator(tenant.slug)).rules
        for name, document in rule_documents(expected).items():
            request = rules.PublishRuleRequest(name=f"{tenant.name}/rules/{name}", document=document)
            await eventually(partial(stub.PublishRule, request))

    async def incidents(
        self, tenant: Tenant, rule: str, *states: rules.IncidentState.ValueType
    ) -> list[rules.Incident]:
        """Those of a rule."""
        stub = (await self.administrator(tenant.slug)).rules
        request = rules.ListIncidentsRequest(
            parent=tenant.name, rule=f"{tenant.name}/rules/{rule}", states=states, page_size=1000
        )
        return list((await eventually(lambda: stub.ListIncidents(request))).incidents)

    async def has(
        self, tenant: Tenant, rule: str, count: int, *states: rules.IncidentState.ValueType
    ) -> bool:
        """Whether the rule has so many incidents."""
        return len(await self.incidents(tenant, rule, *states)) == count

    async def counted_exactly(self, tenant: Tenant, expected: int, next_number: range) -> rules.Incident:
        """One more event than expected is sent, and opens the incident of a count above the expected.

        Had anything been counted twice, or been lost, another event would have opened it, or none.
        """
        assert await self.incidents(tenant, "more") == []
        await self.sender(tenant, "last").deliver(next_number)
        more: rules.Incident
        (more,) = await until(lambda: self.incidents(tenant, "more"))
        assert more.values["aggregate"] == expected + 1, more
        assert more.open_time.ToMicroseconds() == self.began_us + next_number.start * STEP_US, more
        return more

    def place(self, tenant: Tenant) -> Place:
        """Where the tenant's rows are."""
        own = tenant_schema(tenant.tenant_id)
        database, schema = {
            IsolationMode.SHARED: (self.databases.common, SHARED_SCHEMA),
            IsolationMode.SCHEMA: (self.databases.common, own),
            IsolationMode.DEDICATED: (own, DEDICATED_SCHEMA),
        }[tenant.mode]
        return Place(self.databases.server, self.databases.control, database, schema, tenant.tenant_id)


async def until(asked: Callable[[], Awaitable[Any]], within_s: float = WITHIN_S) -> Any:
    """The first answer that is true."""
    async with asyncio.timeout(within_s):
        while not (answer := await asked()):
            await asyncio.sleep(_POLL_S)
        return answer
