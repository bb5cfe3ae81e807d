"""Composition of the whole suite in one process: a start table, and a Host for each service."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from tlsy.broker import BrokerSettings
from tlsy.embedded.adapters.data_directory import SERVICES, DataDirectory, trust_of
from tlsy.embedded.adapters.servers import BrokerPart, PostgresPart
from tlsy.embedded.adapters.welcome import ready_text
from tlsy.embedded.settings import CLUSTER
from tlsy.identity.app import build as build_identity
from tlsy.identity.settings import new_keys_file
from tlsy.ingestion.app import build as build_ingestion
from tlsy.rules_engine.app import build as build_rules_engine
from tlsy.runtime.brokers import Brokers
from tlsy.runtime.clock import SystemClock
from tlsy.runtime.environment import CONTROL_DATABASE
from tlsy.runtime.host import Host
from tlsy.runtime.ids import Uuid7
from tlsy.runtime.logging import get_logger
from tlsy.runtime.service import Part, Supervisor, Task
from tlsy.runtime.settings import SettingsInvalid
from tlsy.runtime.telemetry import open_telemetry
from tlsy.tenancy.local_postgres import DURABLE, PORT, LocalPostgres
from tlsy.tenant_registry.app import build as build_tenant_registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tlsy.embedded.settings import EmbeddedSettings, SettingsOfServices
    from tlsy.rpc.keys import SigningKey
    from tlsy.runtime.service import Readiness, Service
    from tlsy.runtime.telemetry import Telemetry

_LOOPBACK: Final = "127.0.0.1"
_READY_POLL_S: Final = 0.02
_BROKER_BYTES: Final = 64 * 1024 * 1024


class _Dsns(Mapping[str, str]):
    """The one cluster; its password exists only once the server has been made."""

    def __init__(self, server: LocalPostgres, socket_folder: Path) -> None:
        self._server = server
        self._socket_folder = socket_folder

    def __getitem__(self, name: str) -> str:
        if name != CLUSTER:
            raise KeyError(name)
        password = quote(self._server.password, safe="")
        return f"postgresql://:{password}@localhost:{PORT}?host={quote(str(self._socket_folder))}"

    def __iter__(self) -> Iterator[str]:
        return iter((CLUSTER,))

    def __len__(self) -> int:
        return 1


class Suite:
    """Everything, as one service. Who opened its data directory closes it."""

    name = "suite"

    def __init__(
        self,
        settings: EmbeddedSettings,
        services: SettingsOfServices,
        directory: DataDirectory,
        tell: Callable[[str], None],
    ) -> None:
        """Wires it; `directory` must be open. A person is told with `tell` once it is ready.

        Raises:
            SettingsInvalid: a port is taken, or a file that a service's settings name is wrong.
        """
        self._directory = directory
        self._tell = tell
        self._settings = settings
        self._listener, self._telemetry = _ports(self.name, settings)
        self._broker_port: int = self._listener.getsockname()[1]
        self._logger = get_logger("embedded")
        self._supervisor = self._wire(settings, services)

    @property
    def brokers(self) -> tuple[str, ...]:
        """Where the broker listens."""
        return (f"{_LOOPBACK}:{self._broker_port}",)

    async def start(self) -> None:
        """Starts the servers and then all services at once."""
        await self._supervisor.start()

    async def stop(self, grace_s: float) -> None:
        """Stops services, then servers."""
        await self._supervisor.stop(grace_s)
        self._telemetry.close()
        # Where the broker did not come to it.
        self._listener.close()

    async def wait(self) -> None:
        """See `Component.wait`."""
        await self._supervisor.wait()

    def ready(self) -> Readiness:
        """Everything that any service still misses."""
        return self._supervisor.ready()

    def _wire(self, settings: EmbeddedSettings, services: SettingsOfServices) -> Supervisor:
        directory, clock = self._directory, SystemClock()
        server = LocalPostgres(directory.postgres, directory.postgres_socket, DURABLE)
        broker = BrokerSettings(max_total_bytes=_BROKER_BYTES)
        keys = directory.service_keys()
        hosts = {name: self._host(settings, name, keys, server) for name in SERVICES}
        servers = (PostgresPart.name, BrokerPart.name)
        directory.make_identity_keys(lambda: new_keys_file(os.urandom))
        table: Mapping[str, Service] = {
            "tenant-registry": build_tenant_registry(services.tenant_registry, hosts["tenant-registry"]),
            "identity": build_identity(services.identity, hosts["identity"]),
            "ingestion": build_ingestion(services.ingestion, hosts["ingestion"]),
            "rules-engine": build_rules_engine(services.rules_engine, hosts["rules-engine"]),
        }
        return Supervisor(
            self.name,
            [
                Part(PostgresPart(server, CONTROL_DATABASE, clock)),
                Part(BrokerPart(broker, self._listener)),
                *(Part(service, needs=servers) for service in table.values()),
                Part(Task("run-file", self._announce), needs=tuple(table)),
            ],
        )

    async def _announce(self, stopping: asyncio.Event) -> None:
        """Tells others where to connect once all services are ready and the platform has its key."""
        key_file = self._directory.platform_key_file
        while not (self.ready() and key_file.exists()) and not stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _READY_POLL_S)
        if not stopping.is_set():
            self._directory.tell(self.brokers)
            self._logger.info("ready", run_file=str(self._directory.run_file))
            self._tell(ready_text(self._directory, self.brokers, self._settings))
        await stopping.wait()

    def _host(
        self, settings: EmbeddedSettings, name: str, keys: Mapping[str, SigningKey], server: LocalPostgres
    ) -> Host:
        clock = SystemClock()
        directory = self._directory
        telemetry: Telemetry = self._telemetry.for_service(name)
        return Host(
            service=name,
            role=settings.role,
            clock=clock,
            random=os.urandom,
            ids=Uuid7(clock, os.urandom),
            telemetry=telemetry,
            listen=directory.address(name),
            peers={peer: directory.address(peer) for peer in SERVICES},
            clusters=_Dsns(server, directory.postgres_socket),
            control_cluster=CLUSTER,
            brokers=Brokers(",".join(self.brokers)),
            service_key=keys[name].private_jwk,
            trust=trust_of(keys),
        )


def _ports(name: str, settings: EmbeddedSettings) -> tuple[socket.socket, Telemetry]:
    """What listens; SettingsInvalid names each port that is taken."""
    problems: list[str] = []
    listener = telemetry = None
    try:
        listener = _listener(settings.kafka_port)
    except SettingsInvalid as error:
        problems += error.problems
    try:
        telemetry = _telemetry(name, settings)
    except SettingsInvalid as error:
        problems += error.problems
    if listener is None or telemetry is None:
        raise SettingsInvalid(tuple(problems))
    return listener, telemetry


def _listener(port: int) -> socket.socket:
    """Listens from now on: a port that is only chosen may be another's when the broker starts."""
    try:
        return socket.create_server((_LOOPBACK, port))
    except OSError as error:
        raise SettingsInvalid((f"TLSY_EMBEDDED_KAFKA_PORT: {port} cannot be had: {error}",)) from None


def _telemetry(name: str, settings: EmbeddedSettings) -> Telemetry:
    try:
        return open_telemetry(
            name,
            trace_ratio=settings.trace_ratio,
            otlp_endpoint=settings.otlp_endpoint,
            metrics_port=settings.metrics_port,
        )
    except OSError as error:
        variable = "TLSY_EMBEDDED_METRICS_PORT"
        raise SettingsInvalid((f"{variable}: {settings.metrics_port} cannot be had: {error}",)) from None
