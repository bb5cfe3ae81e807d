"""Each service as a bare Deployment of its own image, with PostgreSQL and Apache Kafka as pods beside it."""

from __future__ import annotations

import json
import re
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from images.servers import SERVERS
from tests.cluster.namespace import Namespace
from tests.images.settings import GRACE_S, KEYS, PORT, SERVICES, environment, installed, keys
from tlsy.testkit.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from images.layout import Layout
    from tests.cluster.cluster import Cluster

pytestmark = pytest.mark.cluster

#: Of what `make images` built.
TAG: Final = "dev"
READY_S: Final = 120
STRICT: Final[Mapping[str, Any]] = {
    "runAsNonRoot": True,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
PROBE_ANOTHER: Final = """
import os
from tlsy.rpc.probe import main
os.environ["TLSY_LISTEN"] = "{service}:{port}"
raise SystemExit(main([]))
"""


@pytest.fixture(scope="module")
def images(
    cluster: Cluster, built_images: Layout, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Short name to name, on every node."""
    file = tmp_path_factory.mktemp("images") / "image.tar"
    named = {name: f"tlsy/{name}:{TAG}" for name in (*SERVICES, *SERVERS)}
    for name in named.values():
        with file.open("wb") as archive:
            try:
                built_images.archive(name, archive)
            except LookupError as error:
                pytest.skip(f"{error}: make images")
        cluster.import_image(file)
    file.unlink()
    return {short: f"docker.io/{name}" for short, name in named.items()}


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Iterator[Namespace]:
    name = f"services-{secrets.token_hex(3)}"
    cluster.kubectl("create", "namespace", name)
    yield Namespace(cluster, name)
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def deployed(
    space: Namespace, name: str, port: int, container: Mapping[str, Any], user: int, memory: Mapping[str, str]
) -> None:
    """A Deployment as strict as can be, and a Service of its name; `memory`: volume to place."""
    mounts = [{"name": volume, "mountPath": path} for volume, path in memory.items()]
    volumes = [{"name": volume, "emptyDir": {"medium": "Memory"}} for volume in memory]
    spec = {
        "containers": [
            {
                "name": "main",
                "imagePullPolicy": "Never",
                "securityContext": STRICT,
                **container,
                "volumeMounts": [*mounts, *container.get("volumeMounts", ())],
            }
        ],
        "securityContext": {"runAsUser": user, "runAsGroup": user, "fsGroup": user},
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_S + 10,
        "volumes": [*volumes, {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o440}}],
    }
    template = {"metadata": {"labels": {"app": name}}, "spec": spec}
    wanted = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template}
    # The registry and identity wait for each other: whoever is not ready yet must be reached already.
    front = {"selector": {"app": name}, "ports": [{"port": port}], "publishNotReadyAddresses": True}
    space.make("Service", name, front)
    space.make("Deployment", name, wanted, api="apps/v1")


def ready(space: Namespace, *names: str) -> None:
    for name in names:
        waiting = ("rollout", "status", f"deployment/{name}", f"--timeout={READY_S}s")
        space.cluster.kubectl(f"--namespace={space.name}", *waiting, timeout_s=READY_S + 10)


@pytest.fixture(scope="module")
def services(space: Namespace, images: Mapping[str, str]) -> Iterator[Namespace]:
    """Everything is ready."""
    password = secrets.token_urlsafe(24)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": keys()}
    space.cluster.apply(json.dumps(secret), namespace=space.name)
    postgresql = {
        "image": images["postgresql"],
        "args": ["-c", "wal_level=logical", "-c", "fsync=off", "-c", "max_connections=300"],
        "env": [{"name": "POSTGRES_PASSWORD", "value": password}],
        "readinessProbe": {"exec": {"command": ["pg_isready", "--host=127.0.0.1"]}, "periodSeconds": 1},
    }
    kafka = {
        "image": images["kafka"],
        "env": [{"name": "KAFKA_ADVERTISED", "value": "kafka:9092"}],
        "readinessProbe": {"tcpSocket": {"port": 9092}, "periodSeconds": 1},
    }
    deployed(space, "postgresql", 5432, postgresql, 999, {"data": "/var/lib/postgresql", "tmp": "/tmp"})
    deployed(space, "kafka", 9092, kafka, 65532, {"data": "/var/lib/kafka", "tmp": "/tmp"})
    ready(space, "postgresql", "kafka")
    (pod,) = space.pods("postgresql")
    server = PostgresServer(host=pod["status"]["podIP"], port=5432, user="postgres", password=password)
    with installed(server) as installation:
        for service in SERVICES:
            container = {
                "image": images[service],
                "args": ["--role", "all"],
                "env": [{"name": k, "value": v} for k, v in environment(service, installation).items()],
                "readinessProbe": {"grpc": {"port": PORT}, "periodSeconds": 1},
                "volumeMounts": [{"name": "keys", "mountPath": KEYS, "readOnly": True}],
            }
            deployed(space, service, PORT, container, 65532, {})
        ready(space, *SERVICES)
        yield space


def exec_in(space: Namespace, service: str, text: str) -> str:
    return space.kubectl("exec", f"deployment/{service}", "--", "python3", "-c", text)


@pytest.mark.parametrize("service", SERVICES)
def test_it_answers_another_pod_that_asks_for_its_health(services: Namespace, service: str) -> None:
    asking = SERVICES[SERVICES.index(service) - 1]
    assert exec_in(services, asking, PROBE_ANOTHER.format(service=service, port=PORT)) == "SERVING\n"


@pytest.mark.parametrize("service", SERVICES)
def test_it_has_neither_root_nor_capabilities(services: Namespace, service: str) -> None:
    told = exec_in(services, service, "print(open('/proc/1/status').read())")
    assert re.search(r"^Uid:\t65532\t65532\t65532\t65532$", told, re.MULTILINE)
    assert set(re.findall(r"^Cap(?:Eff|Prm|Bnd|Amb):\t(\w+)$", told, re.MULTILINE)) == {"0" * 16}


@pytest.mark.parametrize("service", SERVICES)
def test_it_stops_within_its_grace_and_another_takes_its_place(services: Namespace, service: str) -> None:
    (pod,) = services.pods(service)
    began_s = time.monotonic()
    services.kubectl("delete", "pod", pod["metadata"]["name"], "--wait")
    assert time.monotonic() - began_s <= GRACE_S
    ready(services, service)
