"""What tests say and ask about pods, with fewer words than kubectl."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.cluster.plan import POD_IMAGE, ClusterError
from tests.cluster.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.cluster.cluster import Cluster

_TIMEOUT_S: Final = 60.0
#: For kubectl to say itself that it waited in vain.
_SLACK_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace of a cluster."""

    cluster: Cluster
    name: str

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """What kubectl prints, in this namespace."""
        return self.cluster.kubectl(f"--namespace={self.name}", *arguments, stdin=stdin)

    def wait(self, *arguments: str) -> None:
        """Lets kubectl wait; in vain, it says what happened here meanwhile."""
        try:
            limit = f"--timeout={_TIMEOUT_S:.0f}s"
            self.cluster.kubectl(
                f"--namespace={self.name}", *arguments, limit, timeout_s=_TIMEOUT_S + _SLACK_S
            )
        except ClusterError as error:
            raise ClusterError(f"{error}\n{self.kubectl('events')}") from None

    def make(self, kind: str, name: str, spec: Mapping[str, Any], api: str = "v1") -> None:
        """Makes or changes an object."""
        metadata = {"name": name, "labels": {"app": name}}
        self.cluster.apply(
            json.dumps({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec}),
            namespace=self.name,
        )

    def pod(self, name: str, *command: str, node: str = "", **more: Any) -> None:
        """Starts a pod of the tests' image and waits until it is ready; `more` is its container's."""
        spec: dict[str, Any] = {
            "containers": [container(*command, **more)],
            "terminationGracePeriodSeconds": 1,
        }
        if node:
            spec["nodeSelector"] = {"kubernetes.io/hostname": node}
        self.make("Pod", name, spec)
        self.wait("wait", f"pod/{name}", "--for=condition=Ready")

    def deployment(self, name: str, spec: Mapping[str, Any], replicas: int = 1) -> None:
        """Starts pods of a specification and waits until they are available."""
        template = {
            "metadata": {"labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 1, **spec},
        }
        self.make(
            "Deployment",
            name,
            {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
            api="apps/v1",
        )
        self.wait("rollout", "status", f"deployment/{name}")

    def service(self, name: str, port: int) -> None:
        """A service in front of the pods of this name."""
        self.make("Service", name, {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": port}]})

    def run(self, pod: str, *command: str) -> str:
        """What a command of the tests' image prints in a pod.

        Raises:
            ClusterError: it failed.
        """
        return self.kubectl("exec", pod, "--", "/pod", *command)

    def succeeds(self, pod: str, *command: str) -> bool:
        """Whether a command does in a pod."""
        try:
            self.run(pod, *command)
        except ClusterError:
            return False
        return True

    def soon_succeeds(self, pod: str, *command: str) -> None:
        """Waits until a command succeeds in a pod."""
        self.soon_says("", pod, *command)

    def soon_says(self, beginning: str, pod: str, *command: str) -> None:
        """Waits until what a command prints in a pod begins so: all learn of changes by and by."""
        said = ""

        def says() -> bool:
            nonlocal said
            try:
                said = self.run(pod, *command)
            except ClusterError as error:
                said = str(error)
                return False
            return said.startswith(beginning)

        try:
            self.soon(says, f"{beginning or 'success'} of {' '.join(command)} in {pod}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it said last: {said}") from None

    def soon_fails(self, pod: str, *command: str) -> None:
        """Waits until a command fails in a pod."""
        self.soon(lambda: not self.succeeds(pod, *command), f"failure of {' '.join(command)} in {pod}")

    def pods(self, app: str) -> list[dict[str, Any]]:
        """The pods of a name that nobody has asked to end."""
        listed = json.loads(self.kubectl("get", "pods", f"--selector=app={app}", "--output=json"))["items"]
        return [pod for pod in listed if "deletionTimestamp" not in pod["metadata"]]

    def soon(self, condition: Callable[[], bool], what: str, timeout_s: float = _TIMEOUT_S) -> None:
        """Waits for a condition, unless a part of the cluster has ended."""

        def met() -> bool:
            self.cluster.check()
            return condition()

        wait_until(met, what, timeout_s)


def container(*command: str, **more: Any) -> dict[str, Any]:
    """A container of the tests' image that runs a command of `go/pod`; a server is ready when it says so."""
    if command[0] == "serve":
        port = int(command[1].rpartition(":")[2])
        more = {"readinessProbe": probe(port, failures=1), **more}
    return {"name": "main", "image": POD_IMAGE, "args": list(command), **more}


def probe(port: int, *, failures: int) -> dict[str, Any]:
    """Asks often, and gives who is slow on a busy machine the time to answer."""
    asked = {"path": "/ready", "port": port}
    return {"httpGet": asked, "periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": failures}


def server(**more: Any) -> dict[str, Any]:
    """A container that serves HTTP on port 8080."""
    return container("serve", ":8080", **more)
