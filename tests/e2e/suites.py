"""The suite in this process: replicas of every service around one installation and one broker."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from examples.demo.processes import Running
from tlsy.contracts.events import SERVICES
from tlsy.identity.app import build as build_identity
from tlsy.identity.settings import IdentitySettings, new_keys_file
from tlsy.ingestion.app import build as build_ingestion
from tlsy.ingestion.settings import IngestionSettings
from tlsy.rules_engine.app import build as build_rules_engine
from tlsy.rules_engine.settings import RulesEngineSettings
from tlsy.tenancy.cluster import MIGRATOR
from tlsy.tenancy.context import IsolationMode, tenant_schema
from tlsy.tenant_registry.app import build as build_tenant_registry
from tlsy.tenant_registry.settings import TenantRegistrySettings
from tlsy.testkit.installation import connect
from tlsy.testkit.suite import running_suite

from .world import Databases, World, until

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from tlsy.runtime.host import Host
    from tlsy.runtime.service import Service
    from tlsy.testkit.installation import Installation
    from tlsy.testkit.suite import Suite

    from .world import Tenant

_KEY_FILE: Final = "platform.key"


@asynccontextmanager
async def suite_in_process(installation: Installation, brokers: str) -> AsyncIterator[tuple[Suite, World]]:
    """One replica of each service; at the end none of them may have broken."""
    async with AsyncExitStack() as stack:
        tenants: list[Tenant] = []
        stack.push_async_callback(_drop_dedicated, installation, tenants)
        suite = await stack.enter_async_context(running_suite(installation, brokers=brokers))
        builders = _builders(suite)
        replicas = [await suite.start(service, build) for service, build in builders.items()]
        await suite.ready()
        await until(lambda: asyncio.to_thread((suite.folder / _KEY_FILE).exists))
        databases = Databases(
            installation.server.address(MIGRATOR), installation.control.database, installation.common.database
        )
        world = World(_running(suite, 0), databases, suite.folder / "kept.json", tenants)
        stack.push_async_callback(world.aclose)
        async with _unbroken(replicas):
            yield suite, world


@dataclass(frozen=True, slots=True)
class ProcessOfEach:
    """A replica of each service that is a process of its own."""

    running: Running
    processes: Sequence[Process]

    async def kill(self) -> None:
        """SIGKILL."""
        for process in self.processes:
            process.kill()


async def processes_beside(suite: Suite) -> ProcessOfEach:
    """One more replica of each service."""
    settings = _process_settings(suite)
    processes = [suite.start_process(service, settings[service]) for service in SERVICES]
    started = await asyncio.gather(*processes)
    return ProcessOfEach(_running(suite, -1), started)


def _running(suite: Suite, replica: int) -> Running:
    """Where this replica of each service is called."""
    return Running(
        services={service: suite.addresses[service][replica] for service in SERVICES},
        brokers=(suite.brokers,),
        postgres=suite.installation.server.host,
        api_key_file=suite.folder / _KEY_FILE,
    )


def _process_settings(suite: Suite) -> Mapping[str, Mapping[str, str]]:
    """What a replica of each service that runs as a process of its own is started with."""
    return {
        "tenant-registry": {
            "TLSY_TENANT_REGISTRY_SHARED_DATABASE": suite.installation.common.database,
            "TLSY_TENANT_REGISTRY_FIRST_CLUSTER": suite.installation.common.cluster,
        },
        "identity": {
            "TLSY_IDENTITY_KEYS_FILE": str(suite.folder / "identity.keys"),
            "TLSY_IDENTITY_ARGON2_MEMORY_KIB": "64",
        },
        "ingestion": {"TLSY_INGESTION_SHARD": "1"},
        "rules-engine": {"TLSY_RULES_ENGINE_TICK_S": "0.2"},
    }


def _builders(suite: Suite) -> Mapping[str, Callable[[Host], Service]]:
    keys = suite.folder / "identity.keys"
    keys.write_text(new_keys_file(os.urandom))
    identity = IdentitySettings(
        keys_file=keys,
        bootstrap_key_file=suite.folder / _KEY_FILE,
        argon2_memory_kib=64,
        argon2_passes=1,
    )
    common = suite.installation.common
    registry = TenantRegistrySettings(shared_database=common.database, first_cluster=common.cluster)
    return {
        "tenant-registry": lambda host: build_tenant_registry(registry, host),
        "identity": lambda host: build_identity(identity, host),
        "ingestion": lambda host: build_ingestion(IngestionSettings(), host),
        "rules-engine": lambda host: build_rules_engine(RulesEngineSettings(tick_s=0.2), host),
    }


@asynccontextmanager
async def _unbroken(replicas: list[Service]) -> AsyncIterator[None]:
    """A replica that breaks would end its process."""
    watched = [asyncio.create_task(replica.wait()) for replica in replicas]
    try:
        yield
        for watcher in watched:
            if watcher.done():
                watcher.result()
    finally:
        for watcher in watched:
            watcher.cancel()
        await asyncio.gather(*watched, return_exceptions=True)


async def _drop_dedicated(installation: Installation, tenants: Sequence[Tenant]) -> None:
    """Databases that the registry made, once its replicas are gone."""
    maintenance = await connect(installation.server.address(MIGRATOR), "postgres")
    try:
        for tenant in tenants:
            if tenant.mode is IsolationMode.DEDICATED:
                database = tenant_schema(tenant.tenant_id)
                await maintenance.execute(f"drop database if exists {database} with (force)")
    finally:
        await maintenance.close()
