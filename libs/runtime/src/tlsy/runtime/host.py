"""What a process lends to the services that run in it, and how a process begins and ends.

A service cannot tell whether it has a process of its own or shares one: both get a `Host`. Stand-alone, one
is made from the environment (`main`); a host of many services makes one for each.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar, get_args

from tlsy.runtime.clock import Clock, SystemClock
from tlsy.runtime.crash_reports import open_crash_reports
from tlsy.runtime.environment import (
    CONNECTIONS_PER_DATABASE,
    CONTROL_DATABASE,
    HostSettings,
    read_brokers,
    read_clusters,
    read_text,
    read_trust,
)
from tlsy.runtime.ids import Uuid7
from tlsy.runtime.logging import configure_logging, get_logger
from tlsy.runtime.service import ComponentFailed, Service
from tlsy.runtime.settings import ServiceSettings, SettingsInvalid, describe, try_load
from tlsy.runtime.telemetry import Telemetry, open_telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tlsy.runtime.brokers import Brokers

Role = Literal["api", "worker", "all"]

#: Containers made beyond those freed until the collector looks at the young ones. A batch is some thousands,
#: and ends without the collector; Python's 700 would look at each several times.
_YOUNG_OBJECTS: Final = 5_000

EXIT_FAILED: Final = 1
EXIT_SETTINGS: Final = 78  # sysexits.h: configuration error


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. With `ca_file` the other side must show a certificate signed by it (mTLS)."""

    cert_file: Path
    key_file: Path
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a process lends to one service.

    Attributes:
        service: its name, e.g. "tenant-registry".
        role: "api" answers calls, "worker" consumes, relays and computes, "all" does both.
        clock: what the time is.
        random: `random(n)` gives n unpredictable bytes.
        ids: UUIDv7, growing.
        telemetry: tracers, and the metrics registry of this service.
        listen: where its server listens: "unix:/path" or "host:port".
        peers: service name to gRPC target, for all services that it may call.
        tls: for its server and its calls; None on unix sockets, whose directory's mode stands in for it.
        clusters: PostgreSQL cluster name to DSN without user and database; asked anew on every look-up, so
            that a cluster added while the process runs is found.
        control_cluster: the cluster that holds the control database.
        control_database: its name.
        connections_per_database: how many connections a service may have to one database.
        brokers: where Kafka is, and how one gets in.
        service_key: the private JWK (JSON, ES256) that this service signs its own tokens with.
        trust: service name to the public JWKS (JSON) that its tokens verify with.
    """

    service: str
    role: Role
    clock: Clock
    random: Callable[[int], bytes]
    ids: Uuid7
    telemetry: Telemetry
    listen: str
    peers: Mapping[str, str]
    tls: TlsFiles | None = None
    clusters: Mapping[str, str]
    control_cluster: str
    control_database: str = CONTROL_DATABASE
    connections_per_database: int = CONNECTIONS_PER_DATABASE
    brokers: Brokers
    service_key: str
    trust: Mapping[str, str]

    @property
    def answers_calls(self) -> bool:
        """Whether RPCs are served."""
        return self.role in {"api", "all"}

    @property
    def works(self) -> bool:
        """Whether consumers, relays and computations run."""
        return self.role in {"worker", "all"}


S = TypeVar("S", bound=ServiceSettings)


class Build(Protocol):
    """`build` of a service's app.py."""

    def __call__(self, settings: Any, host: Host) -> Service:
        """Wire the service; no I/O but the files that its settings name. SettingsInvalid: one is wrong."""
        ...


def host_from(settings: HostSettings, service: str, role: Role) -> Host:
    """The host of a process that runs one service, from its settings.

    Raises:
        OSError: a file that the settings name cannot be read.
    """
    clock = SystemClock()
    tls = None
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        tls = TlsFiles(settings.tls_cert_file, settings.tls_key_file, settings.tls_ca_file)
    return Host(
        service=service,
        role=role,
        clock=clock,
        random=os.urandom,
        ids=Uuid7(clock, os.urandom),
        telemetry=open_telemetry(
            service,
            trace_ratio=settings.trace_ratio,
            otlp_endpoint=settings.otlp_endpoint,
            metrics_port=settings.metrics_port,
        ).for_service(service),
        listen=settings.listen,
        peers=settings.peers,
        tls=tls,
        clusters=read_clusters(settings),
        control_cluster=settings.control_cluster,
        control_database=settings.control_database,
        connections_per_database=settings.connections_per_database,
        brokers=read_brokers(settings),
        service_key=read_text(settings.service_key_file),
        trust=read_trust(settings.trust_dir),
    )


def main(service: str, settings_cls: type[S], app: str, argv: Sequence[str] | None = None) -> int:
    """Run one service until SIGTERM or SIGINT; what a service's __main__.py calls.

    Args:
        service: its name.
        settings_cls: its settings.
        app: the module whose `build` makes it, loaded once the settings are good.
        argv: instead of the process's own arguments.

    Returns:
        The exit code: 0 stopped, 1 a component failed, 78 the settings are wrong (all problems on stderr).
    """
    arguments = _parser(service).parse_args(argv)
    if arguments.settings:
        for doc in (*describe(HostSettings), *describe(settings_cls)):
            sys.stdout.write(f"{doc.variable}\t{doc.unit}\t{doc.default}\t{doc.why}\n")
        return 0
    problems: list[str] = []
    host_settings = try_load(HostSettings, problems)
    settings = try_load(settings_cls, problems)
    reports = None
    if host_settings is not None:
        try:
            reports = open_crash_reports(service, host_settings.sentry_dsn, variable="TLSY_SENTRY_DSN")
        except SettingsInvalid as error:
            problems.extend(error.problems)
    if host_settings is None or settings is None or problems:
        return _settings_are_wrong(service, problems)
    configure_logging(level=host_settings.log_level, report=reports.report if reports else None)
    try:
        host = host_from(host_settings, service, arguments.role)
    except OSError as error:
        where = "a file" if error.filename else f"TLSY_METRICS_PORT: {host_settings.metrics_port}"
        return _settings_are_wrong(service, [f"{where} cannot be had: {error}"])
    rest_collector()
    build: Build = importlib.import_module(app).build
    try:
        return asyncio.run(_build_and_run(build, settings, host, host_settings.stop_grace_s))
    except SettingsInvalid as error:
        return _settings_are_wrong(service, error.problems)
    finally:
        host.telemetry.close()
        if reports is not None:
            reports.close()


def _settings_are_wrong(service: str, problems: Sequence[str]) -> int:
    sys.stderr.write("\n".join([f"{service}: the settings are wrong:", *problems, ""]))
    return EXIT_SETTINGS


async def _build_and_run(build: Build, settings: ServiceSettings, host: Host, grace_s: float) -> int:
    # Built inside the loop: channels belong to the loop that they are made in.
    return await run(build(settings, host), grace_s=grace_s)


async def run(service: Service, *, grace_s: float) -> int:
    """Start `service`, wait for a signal or a failure, stop it within `grace_s`; returns the exit code."""
    logger = get_logger("runtime.host")
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    asked = asyncio.create_task(stopping.wait())
    starting = asyncio.create_task(service.start())
    await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        return 0
    if (error := starting.exception()) is not None:
        asked.cancel()
        logger.error("service failed to start", service=service.name, exc_info=error)
        return EXIT_FAILED
    spare_collector()
    logger.info("service started", service=service.name)
    running = asyncio.create_task(service.wait())
    await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
    failed = running.exception() if running.done() else None
    if failed is not None:
        reason = failed.__cause__ if isinstance(failed, ComponentFailed) else failed
        logger.error(
            "component failed, the process ends", service=service.name, error=str(failed), exc_info=reason
        )
    await service.stop(grace_s)
    for task in (running, asked):
        task.cancel()
    logger.info("service stopped", service=service.name)
    return EXIT_FAILED if failed is not None else 0


def rest_collector() -> None:
    """Until `spare_collector` nothing is collected: what a process loads and makes at its start stays."""
    gc.disable()


def spare_collector() -> None:
    """Takes what a started process holds for good out of the garbage collector's sight.

    Modules, stubs and services are more than 100,000 objects: to walk over them again and again is a fifth of
    the processor time of a process that ingests, and each walk holds up every call. Even the first walk would
    find next to nothing.
    """
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])
    gc.enable()


def _parser(service: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"tlsy-{service}")
    parser.add_argument("--role", choices=get_args(Role), default="all", help="what this process does")
    parser.add_argument(
        "--settings", action="store_true", help="print every setting and its meaning, then exit"
    )
    return parser
