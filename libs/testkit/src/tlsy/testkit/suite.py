"""Replicas of all services, as they run, around one installation and one broker.

Each replica is built by its own `app.build` on a Host of its own and listens on a unix socket; all share this
process, but for those that are started as processes so that they can be killed. For tests that cross
services; the kit knows none of them: a test says how each is built.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tlsy.contracts.events import SERVICES
from tlsy.rpc.keys import generate_key, jwks_of
from tlsy.runtime.brokers import Brokers
from tlsy.runtime.clock import SystemClock
from tlsy.runtime.host import Host
from tlsy.runtime.ids import Uuid7
from tlsy.runtime.telemetry import open_telemetry
from tlsy.testkit.kafka import embedded_broker

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Callable, Mapping

    from tlsy.runtime.service import Service
    from tlsy.testkit.installation import Installation

_READY_S: Final = 60.0
_STOP_S: Final = 5.0
_PROBE_S: Final = 0.5
_POLL_S: Final = 0.02


class Suite:
    """Made by `running_suite`.

    Attributes:
        installation: where tenants' rows are.
        brokers: "host:port".
        folder: private to this suite; holds its sockets and key files.
        telemetry: of the process; every in-process replica has a registry of its own in it.
        addresses: per service the gRPC target of each replica, in the order they were started.
    """

    def __init__(
        self,
        installation: Installation,
        brokers: str,
        folder: Path,
        connections_per_database: int,
        trace_ratio: float,
    ) -> None:
        self.installation = installation
        self.brokers = brokers
        self.folder = folder
        self.telemetry = open_telemetry("suite", trace_ratio=trace_ratio)
        self.addresses: dict[str, list[str]] = {service: [] for service in SERVICES}
        self._connections = connections_per_database
        self._clock = SystemClock()
        self._keys = {service: generate_key() for service in SERVICES}
        self._services: list[Service] = []
        self._processes: list[Process] = []

    async def start(self, service: str, build: Callable[[Host], Service]) -> Service:
        """One more replica in this process; returns it when it has started, ready or not."""
        replica = build(self._host(service))
        await replica.start()
        self._services.append(replica)
        return replica

    async def ready(self) -> None:
        """Return once every replica in this process is ready; AssertionError says what is missing."""
        try:
            async with asyncio.timeout(_READY_S):
                while not all(each.ready() for each in self._services):  # noqa: ASYNC110 - can only be asked
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            missing = {service.name: service.ready().missing for service in self._services}
            raise AssertionError(f"not ready: {missing}") from None

    async def start_process(self, service: str, settings: Mapping[str, str]) -> Process:
        """One more replica as a process of its own, serving; the caller may kill it.

        `settings` are environment variables of the service's own.
        """
        host = self._host(service)
        process = await spawn(host, self.folder, settings)
        self._processes.append(process)
        await serving(process, host)
        return process

    async def stop(self) -> None:
        """Stop every replica, and kill the processes that still run."""
        for process in self._processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
        await asyncio.gather(*(service.stop(_STOP_S) for service in self._services))
        self.telemetry.close()

    def _host(self, service: str) -> Host:
        server, known = self.installation.server, self.addresses[service]
        listen = f"unix:{self.folder / f'{service}-{len(known)}'}"
        known.append(listen)
        return Host(
            service=service,
            role="all",
            clock=self._clock,
            random=os.urandom,
            ids=Uuid7(self._clock, os.urandom),
            telemetry=self.telemetry.for_service(f"{service}-{len(known)}"),
            listen=listen,
            peers={name: f"unix:{self.folder / f'{name}-0'}" for name in SERVICES},
            clusters={
                self.installation.control.cluster: (
                    f"postgresql://:{quote(server.password, safe='')}@localhost:{server.port}"
                    f"?host={quote(server.host)}"
                )
            },
            control_cluster=self.installation.control.cluster,
            control_database=self.installation.control.database,
            connections_per_database=self._connections,
            brokers=Brokers(self.brokers),
            service_key=self._keys[service].private_jwk,
            trust={name: jwks_of((key,)) for name, key in self._keys.items()},
        )


@asynccontextmanager
async def running_suite(
    installation: Installation,
    *,
    brokers: str | None = None,
    connections_per_database: int = 8,
    trace_ratio: float = 0.0,
) -> AsyncIterator[Suite]:
    """A suite without replicas, and its broker; what was started is stopped at the end.

    `brokers` ("host:port") names a broker that runs already, instead of an embedded one.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tk")))
        if brokers is None:
            brokers = await stack.enter_async_context(embedded_broker())
        suite = Suite(installation, brokers, folder, connections_per_database, trace_ratio)
        stack.push_async_callback(suite.stop)
        yield suite


async def spawn(host: Host, folder: Path, settings: Mapping[str, str]) -> Process:
    """One replica as a process of its own, with what `host` would lend it; its key files go to `folder`.

    `settings` are environment variables of the service's own. The caller ends it.
    """
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"tlsy.{host.service.replace('-', '_')}",
        env={**os.environ, **_environment(host, folder), **settings},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )


async def serving(process: Process, host: Host) -> None:
    """Return once the replica serves; AssertionError if it ends."""
    async with asyncio.timeout(_READY_S):
        while not await _serves(host.listen):
            if process.returncode is not None:
                raise AssertionError(f"{host.service} ended with {process.returncode}")
            await asyncio.sleep(_POLL_S)


def _environment(host: Host, folder: Path) -> dict[str, str]:
    trust = folder / "trust"
    trust.mkdir(exist_ok=True)
    for name, jwks in host.trust.items():
        (trust / f"{name}.json").write_text(jwks)
    key = folder / f"{host.service}.key"
    key.write_text(host.service_key)
    return {
        "TLSY_LISTEN": host.listen,
        "TLSY_PEERS": json.dumps(dict(host.peers)),
        "TLSY_CLUSTERS": json.dumps(dict(host.clusters)),
        "TLSY_CONTROL_CLUSTER": host.control_cluster,
        "TLSY_CONTROL_DATABASE": host.control_database,
        "TLSY_CONNECTIONS_PER_DATABASE": str(host.connections_per_database),
        "TLSY_BROKERS": json.dumps(host.brokers.servers.split(",")),
        "TLSY_SERVICE_KEY_FILE": str(key),
        "TLSY_TRUST_DIR": str(trust),
    }


async def _serves(target: str) -> bool:
    async with aio.insecure_channel(target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=_PROBE_S)
        except aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
