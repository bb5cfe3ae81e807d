"""Kafka-protocol brokers for tests: the embedded one in this process, Apache Kafka as a process."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tlsy.broker import Broker, BrokerSettings
from tlsy.testkit.ports import free_port

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Sequence

    from tlsy.runtime.host import TlsFiles

APACHE_KAFKA_VERSION: Final = "4.1.1"

_FETCH_TIMEOUT_S: Final = 300.0
_FORMAT_TIMEOUT_S: Final = 120.0
_START_TIMEOUT_S: Final = 180.0
_STOP_TIMEOUT_S: Final = 20.0
_PROBE_TIMEOUT_MS: Final = 2_000
_POLL_INTERVAL_S: Final = 0.1
_CLUSTER_ID: Final = "dGxzeS10ZXN0a2l0LWthZg"


class MissingToolError(RuntimeError):
    """A program that a test server needs is not installed; the message says what to install."""


class ServerStartError(RuntimeError):
    """A test server did not start; the message ends with the last lines of its log."""


@asynccontextmanager
async def embedded_broker(
    settings: BrokerSettings | None = None, *, port: int = 0, behind_s: int = 0
) -> AsyncIterator[str]:
    """Run the embedded broker in this event loop; yields its bootstrap address, `host:port`.

    Without settings it listens on `port`, or on any free one. With `behind_s` what is written now seems to
    have been there for so long.
    """

    def time_ns() -> int:
        return time.time_ns() - behind_s * 1_000_000_000

    async with Broker(settings or BrokerSettings(port=port), time_ns=time_ns) as broker:
        yield str(broker.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Two more listeners, "localhost:port", that let in by TLS and SCRAM-SHA-512 only.

    Attributes:
        tls: the server's certificate, its key, and the authority that clients' are signed by.
        user: the one user there is.
        password: of that user.
        ports: of the listener that asks for no certificate, and of the one that does.
    """

    tls: TlsFiles
    user: str
    password: str
    ports: Sequence[int] = field(default_factory=lambda: (free_port(), free_port()))

    def listeners(self) -> str:
        """As they stand behind others."""
        return ",USERS://localhost:{},PEERS://localhost:{}".format(*self.ports)

    def properties(self, directory: Path) -> str:
        """What the server has to know besides; its key store is made in the directory."""
        pem = directory / "server.pem"
        pem.write_text(self.tls.key_file.read_text() + self.tls.cert_file.read_text())
        template = (files("tlsy.testkit") / "apache_kafka" / "guarded.properties").read_text()
        return template.format(pem=pem, ca_file=self.tls.ca_file)


@asynccontextmanager
async def apache_kafka(*, replication: int = 1, guard: Guard | None = None) -> AsyncIterator[str]:
    """Run a single-node Apache Kafka on free ports of the loopback; yields `host:port`.

    A topic gets so many replicas, `replication`, where its maker names no number; there is room for one.
    With `guard` it listens there, too.

    The first use fetches the release with Maven into `${XDG_CACHE_HOME:-~/.cache}/tlsy`. Data lives in a
    temporary directory that is removed at the end, as is the process, by its pid. Topics are not created
    by asking for them; session timeouts may be as short as a second.

    Raises:
        MissingToolError: java, or for the first use mvn, is not on the PATH.
        ServerStartError: the release could not be fetched, or the server did not get ready in three minutes.
    """
    java = _tool("java", "a Java runtime, version 17 or newer (Debian: openjdk-17-jre-headless)")
    class_path = f"{await fetched_jars()}/*"
    with tempfile.TemporaryDirectory(prefix="tlsy-kafka-") as root:
        directory = Path(root)
        broker_port, controller_port = free_port(), free_port()
        properties = directory / "server.properties"
        properties.write_text(
            (files("tlsy.testkit") / "apache_kafka" / "server.properties")
            .read_text()
            .format(
                broker_port=broker_port,
                controller_port=controller_port,
                data=directory / "data",
                replication=replication,
                guarded=guard.listeners() if guard else "",
            )
            + (guard.properties(directory) if guard else "")
        )
        formatting = [java, "-cp", class_path, "kafka.tools.StorageTool", "format", "--standalone"]
        if guard is not None:
            formatting += ["--add-scram", f"SCRAM-SHA-512=[name={guard.user},password={guard.password}]"]
        await _run(
            (*formatting, "-t", _CLUSTER_ID, "-c", str(properties)),
            log=directory / "format.log",
            timeout_s=_FORMAT_TIMEOUT_S,
        )
        log = directory / "server.log"
        address = f"127.0.0.1:{broker_port}"
        server = await _start((java, "-Xmx512m", "-cp", class_path, "kafka.Kafka", str(properties)), log)
        try:
            await _wait_until_ready(server, address, log)
            yield address
        finally:
            await _end(server)


async def fetched_jars() -> Path:
    """The folder with the release's jars, fetched if it is not there.

    Raises:
        MissingToolError: mvn, to fetch them, is not on the PATH.
        ServerStartError: they cannot be fetched.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tlsy"
    jars = cache / f"apache-kafka-{APACHE_KAFKA_VERSION}"
    if jars.is_dir():
        return jars
    maven = _tool("mvn", "Apache Maven (Debian: maven)")
    cache.mkdir(parents=True, exist_ok=True)
    # Fetched aside and renamed, so that an interrupted fetch is never taken for a whole one.
    with tempfile.TemporaryDirectory(prefix=f"{jars.name}-", dir=cache) as aside:
        pom = Path(aside) / "pom.xml"
        pom.write_text((files("tlsy.testkit") / "apache_kafka" / "pom.xml").read_text())
        fetched = Path(aside) / "jars"
        await _run(
            (maven, "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={fetched}"),
            log=Path(aside) / "fetch.log",
            timeout_s=_FETCH_TIMEOUT_S,
        )
        try:
            fetched.rename(jars)
        except OSError:
            if not jars.is_dir():
                raise
    return jars


def _tool(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise MissingToolError(f"'{name}' is not on the PATH: install {package}")
    return path


async def _start(command: Sequence[str], log: Path) -> Process:
    with log.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
        )


async def _run(command: Sequence[str], *, log: Path, timeout_s: float) -> None:
    process = await _start(command, log)
    try:
        async with asyncio.timeout(timeout_s):
            status = await process.wait()
    except TimeoutError as error:
        raise ServerStartError(f"{command[0]} took longer than {timeout_s} s\n{_tail(log)}") from error
    finally:
        await _end(process)
    if status != 0:
        raise ServerStartError(f"{command[0]} ended with status {status}\n{_tail(log)}")


async def _wait_until_ready(server: Process, address: str, log: Path) -> None:
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            while not await _answers(address):
                if server.returncode is not None:
                    raise ServerStartError(f"Apache Kafka ended while starting\n{_tail(log)}")
                await asyncio.sleep(_POLL_INTERVAL_S)
    except TimeoutError as error:
        raise ServerStartError(f"Apache Kafka was not ready in {_START_TIMEOUT_S} s\n{_tail(log)}") from error


async def _answers(address: str) -> bool:
    host, port = address.split(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    admin = AIOKafkaAdminClient(bootstrap_servers=address, request_timeout_ms=_PROBE_TIMEOUT_MS)
    try:
        await admin.start()
        await admin.describe_cluster()
    except KafkaError:
        return False
    finally:
        await admin.close()
    return True


async def _end(process: Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
