"""PostgreSQL, Apache Kafka and the four services as containers of a network of their own.

Each runs as a strict cluster runs it: the root read-only, no capability and none to be gained.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tlsy.testkit.postgres import PostgresServer

from .settings import AGENT_BUFFER, KEYS, PORT, SERVICES, environment, installed, keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import docker
    from docker.models.containers import Container
    from docker.models.networks import Network

    from tlsy.testkit.installation import Installation

_USER: Final = 65532
_DEADLINE_S: Final = 180.0
_POLL_S: Final = 0.02
_LOCKED: Final[Mapping[str, Any]] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "pids_limit": 500,
}


class Containers:
    """Made by `running_containers`; services are started by tests."""

    def __init__(self, engine: docker.DockerClient, images: Mapping[str, str], secret: Path) -> None:
        self._engine = engine
        self._images = images
        self._secret = secret
        self._stack = ExitStack()
        self._network: Network
        self._installation: Installation
        self.running: dict[str, Container] = {}

    def open(self) -> None:
        """The network, both servers, and the databases."""
        self._network = self._engine.networks.create(f"tlsy-test-{secrets.token_hex(4)}")
        self._stack.callback(self._network.remove)
        password = secrets.token_urlsafe(24)
        postgres = self._run(
            *("postgresql", "postgresql"),
            environment={"POSTGRES_PASSWORD": password},
            command=["-c", "wal_level=logical", "-c", "fsync=off", "-c", "max_connections=300"],
            tmpfs={"/var/lib/postgresql": "uid=999,gid=999,mode=0700", "/tmp": "mode=1777"},
            shm_size="256m",
        )
        kafka = self._run(
            *("kafka", "kafka"),
            environment={"KAFKA_ADVERTISED": "kafka:9092"},
            tmpfs={"/var/lib/kafka": f"uid={_USER},gid={_USER},mode=0700", "/tmp": "mode=1777"},
        )
        for server in (postgres, kafka):
            until(healthy, server)
        server = PostgresServer(host=address(postgres), port=5432, user="postgres", password=password)
        self._installation = self._stack.enter_context(installed(server))
        for name, content in keys().items():
            (self._secret / name).write_text(content)
        for path in (self._secret, *self._secret.iterdir()):
            os.chown(path, _USER, _USER)
            path.chmod(0o700 if path.is_dir() else 0o600)

    def close(self) -> None:
        """Nothing of it is left."""
        self._stack.close()

    def start(self, service: str, *, role: str = "all", name: str = "") -> Container:
        """One replica of a service, which the others reach by `name`; returns at once."""
        return self._run(
            *(service, name or service),
            environment=environment(service, self._installation),
            volumes={str(self._secret): {"bind": KEYS, "mode": "ro"}},
            command=["--role", role],
        )

    def start_agent(self, *arguments: str) -> Container:
        """The agent with the tests' settings, which keeps nothing but its buffer; returns at once."""
        return self._run(
            *("agent", f"agent-{secrets.token_hex(2)}"),
            volumes={str(self._secret): {"bind": KEYS, "mode": "ro"}},
            tmpfs={AGENT_BUFFER: f"uid={_USER},gid={_USER},mode=0700"},
            command=["--config", f"{KEYS}/agent.yaml", *arguments],
        )

    def start_all(self) -> None:
        """One replica of each service, all serving."""
        for service in SERVICES:
            self.running[service] = self.start(service)
        for container in self.running.values():
            until(serves, container)

    def _run(self, image: str, name: str, **options: Any) -> Container:
        """A container that the others reach by `name`."""
        network = str(self._network.name)
        container = self._engine.containers.create(
            self._images[image],
            name=f"{network}-{name}",
            network=network,
            networking_config={network: self._engine.api.create_endpoint_config(aliases=[name])},
            **_LOCKED,
            **options,
        )
        self._stack.callback(container.remove, force=True, v=True)
        container.start()
        return container


@contextmanager
def running_containers(engine: docker.DockerClient, images: Mapping[str, str]) -> Iterator[Containers]:
    """Both servers running and installed; every container is gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="tlsy-keys-"))
    made = Containers(engine, images, folder)
    try:
        made.open()
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)


def address(container: Container) -> str:
    """Of the container in its network."""
    container.reload()
    (network,) = container.attrs["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def healthy(container: Container) -> bool:
    """What the image's own probe said last."""
    container.reload()
    return bool(container.attrs["State"]["Health"]["Status"] == "healthy")


def serves(container: Container) -> bool:
    """Whether its gRPC health says SERVING."""
    with grpc.insecure_channel(f"{address(container)}:{PORT}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def until(condition: Callable[[Container], bool], container: Container) -> float:
    """Seconds until it holds; AssertionError with the container's last words if it does not."""
    began_s = time.monotonic()
    while not condition(container):
        container.reload()
        late = time.monotonic() - began_s > _DEADLINE_S
        if late or container.status == "exited":
            raise AssertionError(f"{container.name}: {container.status}\n{container.logs(tail=40).decode()}")
        time.sleep(_POLL_S)
    return time.monotonic() - began_s
