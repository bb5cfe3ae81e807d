"""The suite as pods, as strict as can be: two replicas of each service, PostgreSQL and Apache Kafka."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from tests.images.settings import GRACE_S, KEYS, PORT, SERVICES, environment, keys
from tlsy.testkit.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.cluster.namespace import Namespace
    from tlsy.testkit.installation import Installation

    Object = Mapping[str, Any]

REPLICAS: Final[Mapping[str, int]] = MappingProxyType(
    {"postgresql": 1, "kafka": 1, **dict.fromkeys(SERVICES, 2)}
)
_READY_S: Final = 120.0
_POLL_S: Final = 0.1
_USER: Final = 65532
_POSTGRES_USER: Final = 999
_POSTGRES_PORT: Final = 5432
KAFKA_PORT: Final = 9092
_BOOTSTRAP: Final = "/bootstrap"
_STRICT: Final[Object] = {
    "runAsNonRoot": True,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
#: Asked often; whoever is slow on a machine with other work is ready all the same.
_PROBED: Final[Object] = {"periodSeconds": 1, "timeoutSeconds": 10}
_CLAIM: Final[Object] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
#: What the end-to-end tests set wherever they run.
_SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "identity": {
        "TLSY_IDENTITY_BOOTSTRAP_KEY_FILE": f"{_BOOTSTRAP}/platform.key",
        "TLSY_IDENTITY_ARGON2_MEMORY_KIB": "64",
    },
    "rules-engine": {"TLSY_RULES_ENGINE_TICK_S": "0.2"},
}
_READ: Final = """
import pathlib, sys
print(*(file.read_text() for file in pathlib.Path(sys.argv[1]).glob("*.key")))
"""


class SuiteOfPods:
    """Services are called, and servers reached, by addresses that stay when pods do not."""

    def __init__(self, space: Namespace, images: Mapping[str, str]) -> None:
        self.space = space
        self.installation: Installation
        self.platform_key = ""
        self._images = images
        self._password = secrets.token_urlsafe(24)

    def start_servers(self) -> None:
        """PostgreSQL and Kafka, with their data on volumes; returns once they are ready."""
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": keys()}
        self.space.cluster.apply(json.dumps(secret), namespace=self.space.name)
        self._front("postgresql", _POSTGRES_PORT)
        self._front("kafka", KAFKA_PORT)
        postgresql = {
            "image": self._images["postgresql"],
            "args": ["-c", "wal_level=logical", "-c", "fsync=off", "-c", "max_connections=500"],
            "env": _variables({"POSTGRES_PASSWORD": self._password}),
            "readinessProbe": {"exec": {"command": ["pg_isready", "--host=127.0.0.1"]}, **_PROBED},
        }
        kafka = {
            "image": self._images["kafka"],
            # A name that this machine and pods have in common.
            "env": _variables({"KAFKA_ADVERTISED": f"{self.address('kafka')}:{KAFKA_PORT}"}),
            "readinessProbe": {"tcpSocket": {"port": KAFKA_PORT}, **_PROBED},
        }
        self._stateful("postgresql", postgresql, _POSTGRES_USER, "/var/lib/postgresql")
        self._stateful("kafka", kafka, _USER, "/var/lib/kafka")
        self.ready("postgresql", "kafka")

    def start_services(self, installation: Installation) -> None:
        """Two replicas of each; returns once they are ready."""
        self.installation = installation
        for service in SERVICES:
            # The registry and identity wait for each other: whoever is not ready yet must be reached already.
            self._front(service, PORT, publishNotReadyAddresses=True)
            self._front(f"{service}-ready", PORT, app=service)
            variables = {**environment(service, installation), **_SETTINGS.get(service, {})}
            container = {
                "image": self._images[service],
                "args": ["--role", "all"],
                "env": _variables(variables),
                "readinessProbe": {"grpc": {"port": PORT}, **_PROBED},
                "volumeMounts": [{"name": "keys", "mountPath": KEYS, "readOnly": True}],
            }
            secret = {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o440}}
            own = {"bootstrap": _BOOTSTRAP} if service == "identity" else {}
            template = _template(service, container, _USER, memory=own, volumes=[secret])
            wanted = {"replicas": REPLICAS[service], "selector": _chosen(service), "template": template}
            self.space.make("Deployment", service, wanted, api="apps/v1")
        self.ready(*SERVICES)
        self.platform_key = self._written_key()

    def server(self) -> PostgresServer:
        """As this machine reaches it."""
        host = self.address("postgresql")
        return PostgresServer(host=host, port=_POSTGRES_PORT, user="postgres", password=self._password)

    def address(self, front: str) -> str:
        """Of a Service."""
        path = f"/api/v1/namespaces/{self.space.name}/services/{front}"
        return str(self.space.cluster.get(path)["spec"]["clusterIP"])

    def of(self, *apps: str) -> list[dict[str, Any]]:
        """Their pods, but those that shall end."""
        found = self.space.cluster.get(f"/api/v1/namespaces/{self.space.name}/pods")["items"]
        return [
            pod
            for pod in found
            if pod["metadata"]["labels"]["app"] in apps and "deletionTimestamp" not in pod["metadata"]
        ]

    def ready(self, *apps: str) -> None:
        """Waits until they have as many pods as they shall, each ready; AssertionError shows them."""
        until_s = time.monotonic() + _READY_S
        wanted = sum(REPLICAS[app] for app in apps)
        while not (len(pods := self.of(*apps)) == wanted and all(map(_is_ready, pods))):
            assert time.monotonic() < until_s, self.space.kubectl("get", "pods", "--output=wide")
            time.sleep(_POLL_S)

    def errors(self) -> str:
        """What its services complained about, of the pods that are there."""
        chosen = f"--selector=app in ({','.join(SERVICES)})"
        # One that has only been made has no log yet.
        how = ("--ignore-errors", "--prefix", "--tail=-1", "--max-log-requests=20")
        told = self.space.kubectl("logs", chosen, *how)
        return "\n".join(line for line in told.splitlines() if '"level": "error"' in line)

    def kill(self, pods: Sequence[Object]) -> None:
        """SIGKILL to each at once; then Kubernetes is told that they are gone, and makes others."""
        state = self.space.cluster.plan.state
        killing = []
        for pod in pods:
            socket = f"{state}/{pod['spec']['nodeName']}/containerd.sock"
            for container in pod["status"].get("containerStatuses", ()):
                name = container.get("containerID", "").removeprefix("containerd://")
                command = ("ctr", "-a", socket, "-n", "k8s.io", "tasks", "kill", "--signal=SIGKILL", name)
                killing.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        for each in killing:
            each.wait()
        names = [f"pod/{pod['metadata']['name']}" for pod in pods]
        self.space.kubectl("delete", *names, "--grace-period=1", "--wait=false")

    def take_away(self, app: str, *, wiped: bool) -> None:
        """Kills a server, and keeps it away; wiped means its volume too."""
        self.kill(self.of(app))
        self.space.kubectl("scale", f"statefulset/{app}", "--replicas=0")
        if wiped:
            self.space.kubectl("delete", f"persistentvolumeclaim/data-{app}-0", "--wait=false")

    def give_back(self, app: str) -> None:
        """Returns once it is ready."""
        self.space.kubectl("scale", f"statefulset/{app}", f"--replicas={REPLICAS[app]}")
        self.ready(app)

    def _written_key(self) -> str:
        """By the replica of identity that came first; it is gone with that pod."""
        pods = [pod["metadata"]["name"] for pod in self.of("identity")]
        told = [self.space.kubectl("exec", pod, "--", "python3", "-c", _READ, _BOOTSTRAP) for pod in pods]
        return "".join(told).strip()

    def _front(self, name: str, port: int, *, app: str = "", **more: Any) -> None:
        self.space.make(
            "Service", name, {"selector": {"app": app or name}, "ports": [{"port": port}], **more}
        )

    def _stateful(self, name: str, container: Object, user: int, data: str) -> None:
        """A pod with its own volume; another one begins only where the one before is gone."""
        mounts = {**container, "volumeMounts": [{"name": "data", "mountPath": data}]}
        wanted = {
            "replicas": REPLICAS[name],
            "selector": _chosen(name),
            "serviceName": name,
            "template": _template(name, mounts, user, memory={"tmp": "/tmp"}),
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": _CLAIM}],
        }
        self.space.make("StatefulSet", name, wanted, api="apps/v1")


def _chosen(app: str) -> Object:
    return {"matchLabels": {"app": app}}


def _variables(environment: Mapping[str, str]) -> list[Object]:
    return [{"name": name, "value": value} for name, value in environment.items()]


def _template(
    app: str, container: Object, user: int, *, memory: Mapping[str, str], volumes: Sequence[Object] = ()
) -> Object:
    """Of a pod; `memory`: volume to place."""
    mounts = [{"name": volume, "mountPath": path} for volume, path in memory.items()]
    kept = [{"name": volume, "emptyDir": {"medium": "Memory"}} for volume in memory]
    main = {
        "name": "main",
        "imagePullPolicy": "Never",
        "securityContext": _STRICT,
        **container,
        "volumeMounts": [*mounts, *container.get("volumeMounts", ())],
    }
    spec = {
        "containers": [main],
        "securityContext": {
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            # Once: PostgreSQL does not start on files that its group may change.
            "fsGroupChangePolicy": "OnRootMismatch",
        },
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_S + 10,
        "volumes": [*kept, *volumes],
    }
    return {"metadata": {"labels": {"app": app}}, "spec": spec}


def _is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
