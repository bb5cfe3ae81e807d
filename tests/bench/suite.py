"""The suite as it runs for many tenants: each service a process of its own, and PostgreSQL on a disk.

The broker shares the benchmark's process, which does nothing else while something is measured.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
import grpc
import psutil

from examples.demo.processes import Running
from examples.demo.sessions import Principals, eventually
from tlsy.contracts.events import SERVICES
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as rules_pb
from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as registry_pb
from tlsy.identity.settings import new_keys_file
from tlsy.tenancy import migrations
from tlsy.tenancy.local_postgres import DURABLE
from tlsy.testkit.installation import Templates
from tlsy.testkit.postgres import running_postgres
from tlsy.testkit.suite import running_suite

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from examples.demo.sessions import Session
    from tlsy.testkit.suite import Suite

_READY_S: Final = 60.0
_POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class BenchSuite:
    """A running one. `password` is the database administrator's; `services` are the processes by name."""

    running: Running
    password: str
    services: Mapping[str, psutil.Process]

    async def connect(self, database: str) -> asyncpg.Connection:
        """A connection of the administrator's."""
        return await asyncpg.connect(
            host=self.running.postgres, user="postgres", password=self.password, database=database, timeout=10
        )

    def cpu_s(self) -> float:
        """Seconds of processor time that all services have taken so far."""
        times = [process.cpu_times() for process in self.services.values()]
        return sum(each.user + each.system for each in times)

    def rss_mb(self) -> float:
        """What all services have in memory."""
        return sum(process.memory_info().rss for process in self.services.values()) / 2**20


@dataclass(frozen=True, slots=True)
class BenchTenant:
    """A tenant, where its rows are, and the token of its agent."""

    slug: str
    tenant_id: str
    place: tenant_pb2.Placement
    token: str


@asynccontextmanager
async def bench_suite() -> AsyncIterator[BenchSuite]:
    """Started, and ready; nothing of it is left at the end."""
    with running_postgres(DURABLE, below=_disk()) as server:
        templates = Templates(server, migrations.installed())
        await templates.build()
        async with templates.installation() as installation, running_suite(installation) as suite:
            processes = await _start(suite)
            running = Running(
                services={service: suite.addresses[service][0] for service in SERVICES},
                brokers=(suite.brokers,),
                postgres=server.host,
                api_key_file=suite.folder / "platform.key",
            )
            async with asyncio.timeout(_READY_S):
                while not running.api_key_file.exists():
                    await asyncio.sleep(_POLL_S)
            services = {name: psutil.Process(process.pid) for name, process in processes.items()}
            yield BenchSuite(running, server.password, services)


async def _start(suite: Suite) -> Mapping[str, Process]:
    keys = suite.folder / "identity.keys"
    keys.write_text(new_keys_file(os.urandom))
    common = suite.installation.common
    settings = {
        "tenant-registry": {
            "TLSY_TENANT_REGISTRY_SHARED_DATABASE": common.database,
            "TLSY_TENANT_REGISTRY_FIRST_CLUSTER": common.cluster,
        },
        "identity": {
            "TLSY_IDENTITY_KEYS_FILE": str(keys),
            "TLSY_IDENTITY_BOOTSTRAP_KEY_FILE": str(suite.folder / "platform.key"),
        },
    }
    starting = [suite.start_process(service, settings.get(service, {})) for service in SERVICES]
    return dict(zip(SERVICES, await asyncio.gather(*starting), strict=True))


def _disk() -> Path:
    """For root not below /root or in memory: PostgreSQL's own user must be able to reach it."""
    if os.geteuid() != 0:
        return Path(tempfile.gettempdir())
    root = Path("/var/lib/tlsy")
    root.mkdir(parents=True, exist_ok=True)
    return root


async def make_tenants(
    modes: Sequence[str], rules: int, rule: Callable[[int], bytes], principals: Principals
) -> list[BenchTenant]:
    """A tenant in each of these isolation modes, with that many rules and an agent's token each."""
    platform = principals.platform()
    country = tenant_pb2.Country(name="countries/fr", display_name="France")
    try:
        await platform.registry.CreateCountry(registry_pb.CreateCountryRequest(country=country))
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
            raise
    documents = [rule(number) for number in range(rules)]
    making = [
        _make_tenant(f"bench-{number}", mode, documents, platform, principals)
        for number, mode in enumerate(modes)
    ]
    return list(await asyncio.gather(*making))


async def _make_tenant(
    slug: str, mode: str, documents: Sequence[bytes], platform: Session, principals: Principals
) -> BenchTenant:
    asked = tenant_pb2.Tenant(
        display_name=slug,
        country="countries/fr",
        sector_profile=tenant_pb2.SECTOR_PROFILE_SME,
        isolation_mode=tenant_pb2.IsolationMode.Value(f"ISOLATION_MODE_{mode}"),
        tier=tenant_pb2.TIER_ENTERPRISE,
        locale="fr-FR",
        time_zone="Europe/Paris",
        currency_code="EUR",
    )
    operation = await platform.registry.CreateTenant(
        registry_pb.CreateTenantRequest(tenant_slug=slug, tenant=asked)
    )
    while not operation.done:
        wait = registry_pb.WaitOperationRequest(name=operation.name)
        operation = await platform.registry.WaitOperation(wait, timeout=60)
    tenant = await platform.registry.GetTenant(registry_pb.GetTenantRequest(name=f"tenants/{slug}"))
    administrator = await principals.administrator(slug, platform)
    await principals.agent_key(slug, administrator)

    for number, document in enumerate(documents):
        request = rules_pb.PublishRuleRequest(name=f"tenants/{slug}/rules/rule-{number}", document=document)
        await eventually(partial(administrator.rules.PublishRule, request))
    return BenchTenant(slug, tenant.tenant_id, tenant.placement, await principals.agent(slug).token())


def say(text: str) -> None:
    """Progress, for whoever waits."""
    sys.stderr.write(f"{text} …\n")
