"""A running cluster: how it is started, used and ended."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import string
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import psutil

from tests.cluster.keeper import KEEPER_FILE, PLAN_FILE, STAY, alive, claim, give_back
from tests.cluster.plan import POD_IMAGE, PROGRAMS_INSIDE, ROOT, ClusterError, Plan, home, plan_of
from tests.cluster.preflight import check_machine
from tests.cluster.processes import wait_until
from tests.cluster.programs import programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The cluster of `make cluster-up`.
SHARED: Final = "up"
_NODES: Final = 2
_START_TIMEOUT_S: Final = 120.0
_STOP_TIMEOUT_S: Final = 40.0
_CALL_TIMEOUT_S: Final = 60.0
_PROBE_TIMEOUT_S: Final = 20.0
_POLL_INTERVAL_S: Final = 0.1
#: Of the log of a part that ended, in the message of it.
_LINES: Final = 6


@dataclass(frozen=True, slots=True)
class Cluster:
    """What tests do with a cluster, as its administrator."""

    plan: Plan

    @property
    def kubeconfig(self) -> Path:
        """For kubectl, helm and clients."""
        return Path(self.plan.state) / "kubeconfig"

    def environment(self) -> dict[str, str]:
        """This process's, with the cluster's kubectl first on the PATH and its kubeconfig."""
        path = f"{self.plan.programs}:{os.environ['PATH']}"
        cache = f"{self.plan.state}/kubectl"
        return {**os.environ, "PATH": path, "KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": cache}

    def kubectl(self, *arguments: str, stdin: str = "", timeout_s: float = _CALL_TIMEOUT_S) -> str:
        """What kubectl prints.

        Raises:
            ClusterError: it failed; with what it said.
        """
        done = subprocess.run(
            (f"{self.plan.programs}/kubectl", *arguments),
            env=self.environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, manifest: str, *, namespace: str = "") -> None:
        """Makes objects as a manifest says, YAML or JSON; it may leave it to `namespace` where."""
        where = (f"--namespace={namespace}",) if namespace else ()
        self.kubectl("apply", *where, "--filename=-", stdin=manifest)

    def get(self, path: str) -> dict[str, Any]:
        """What the API says at a path, such as `/api/v1/nodes`.

        Raises:
            OSError: it does not answer, or not with success (urllib.error.HTTPError).
        """
        control = Path(self.plan.state) / "control"
        trusted = ssl.create_default_context(cafile=str(control / "ca.crt"))
        trusted.load_cert_chain(control / "admin.crt", control / "admin.key")
        return cast("dict[str, Any]", json.loads(_answer(self.plan.api + path, trusted)))

    def import_image(self, file: Path) -> None:
        """Gives all nodes the images of a file of `docker save`.

        Pods whose images have a tag other than `latest`, or that say `imagePullPolicy: Never`, run on them.
        """
        imports = [
            subprocess.Popen(
                ("ctr", "--address", f"{self.plan.state}/{node}/containerd.sock", "--namespace", "k8s.io",
                 "images", "import", str(file)),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )
            for node in self.plan.node_names()
        ]  # fmt: skip
        failures = [said for each in imports if (said := each.communicate()[1]) and each.returncode != 0]
        if failures:
            raise ClusterError(f"{file} could not be imported: {failures[0].strip()}")

    def on_node(self, node: str, *command: str) -> str:
        """What a program prints that runs as root on a node, in its namespaces."""
        done = subprocess.run(
            (*self.entering(node), *command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def entering(self, node: str) -> tuple[str, ...]:
        """What comes before a command that shall run on a node.

        Raises:
            ClusterError: there is no such node.
        """
        ending = ["-m", "tests.cluster.node", node.removeprefix("node-")]
        keeper = _keeper(Path(self.plan.state))
        for process in psutil.Process(keeper[0]).children(recursive=True) if keeper else ():
            line = process.cmdline()
            if line[-3:] == ending and Path(line[0]).name.startswith("python"):
                return ("nsenter", f"--target={process.pid}", "--mount", "--net", "--pid", "--uts", "--ipc")
        raise ClusterError(f"there is no node {node}: {', '.join(self.plan.node_names())}")

    def log(self, part: str) -> str:
        """The log of one of its programs, such as `control/kube-apiserver` or `node-0/kubelet`."""
        return (Path(self.plan.state) / "log" / f"{part}.log").read_text(errors="replace")


@contextlib.contextmanager
def running_cluster(name: str = "", *, nodes: int = _NODES, stay: bool = False) -> Iterator[Cluster]:
    """Starts a cluster; it ends with the context, or with this process however it ends, unless it shall stay.

    Raises:
        ClusterError: the machine lacks something, or the cluster did not start.
    """
    check_machine()
    built = programs()
    sweep()
    state = home() / (name or f"of-{os.getpid()}")
    keeper = subprocess.Popen(
        (sys.executable, "-m", "tests.cluster.keeper", str(state), str(built), str(nodes)),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    kept = False
    try:
        cluster = _started(keeper)
        if stay:
            keeper.stdin.write(STAY)
            keeper.stdin.flush()
            kept = True
        yield cluster
    finally:
        keeper.stdin.close()
        keeper.stdout.close()
        if not kept:
            keeper.wait(_STOP_TIMEOUT_S)


def shared_cluster() -> Cluster | None:
    """The one of `make cluster-up`, if there is one."""
    state = home() / SHARED
    keeper = _keeper(state)
    if keeper is None or not alive(keeper):
        return None
    return Cluster(plan_of((state / PLAN_FILE).read_text()))


def stop(name: str = SHARED) -> bool:
    """Ends a cluster, also one whose keeper was killed; whether there was one."""
    state = home() / name
    keeper = _keeper(state)
    if keeper is not None and alive(keeper):
        os.kill(keeper[0], signal.SIGTERM)
        try:
            wait_until(lambda: not alive(keeper), "the end of the cluster", _STOP_TIMEOUT_S)
        except TimeoutError:
            os.kill(keeper[0], signal.SIGKILL)
            wait_until(lambda: not alive(keeper), "the end of the cluster's keeper", _STOP_TIMEOUT_S)
    sweep()
    return keeper is not None


def sweep() -> None:
    """Removes what clusters left whose keepers were killed."""
    if not home().is_dir():
        return
    for state in home().iterdir():
        keeper = _keeper(state)
        if keeper is None or alive(keeper):
            continue
        # Another starts there.
        with contextlib.suppress(ClusterError):
            lock = claim(state)
            give_back(state, lock)


def _answer(url: str, trusted: ssl.SSLContext | None = None) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_TIMEOUT_S, context=trusted) as answer:
            return cast("bytes", answer.read())
    except urllib.error.HTTPError as error:
        error.close()  # it is an answer, with a connection
        raise


def _keeper(state: Path) -> list[int] | None:
    try:
        return cast("list[int]", json.loads((state / KEEPER_FILE).read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def _started(keeper: subprocess.Popen[bytes]) -> Cluster:
    assert keeper.stdout is not None
    said = json.loads(keeper.stdout.readline() or '{"error": "the keeper of the cluster was killed"}')
    if "error" in said:
        raise ClusterError(said["error"])
    cluster = Cluster(plan_of(said["plan"]))
    deadline = time.monotonic() + _START_TIMEOUT_S
    for what, condition in (
        ("the API server answers", _manifests_applied),
        ("the nodes are ready", _nodes_ready),
        ("services are routed on every node", _proxies_ready),
        ("names are resolved", _names_ready),
    ):
        while not _holds(cluster, what, condition, deadline):
            time.sleep(_POLL_INTERVAL_S)
    return cluster


def _holds(cluster: Cluster, what: str, condition: Callable[[Cluster], bool], deadline: float) -> bool:
    """Not yet, as long as something does not answer.

    Raises:
        ClusterError: never, since a part of the cluster has ended, or it is too late.
    """
    ended = _ended(cluster)
    if ended:
        raise ClusterError(
            f"the cluster did not start: {', '.join(ended)} ended\n{_last_words(cluster, ended)}"
        )
    why: object = "not yet"
    try:
        if condition(cluster):
            return True
    except (OSError, http.client.HTTPException, ClusterError, subprocess.TimeoutExpired) as error:
        why = error
    if time.monotonic() > deadline:
        raise ClusterError(
            f"the cluster did not start in {_START_TIMEOUT_S:.0f} s. Waited for: {what}; {why}"
        )
    return False


def _manifests_applied(cluster: Cluster) -> bool:
    values = {
        "dns_service": cluster.plan.dns_service,
        "image": POD_IMAGE,
        "nodes": str(cluster.plan.nodes),
        "programs": str(PROGRAMS_INSIDE),
    }
    texts = [file.read_text() for file in sorted((Path(__file__).parent / "manifests").glob("*.yaml"))]
    cluster.get("/api/v1/namespaces/kube-system")
    cluster.apply(string.Template("---\n".join(texts)).substitute(values))
    return True


def _nodes_ready(cluster: Cluster) -> bool:
    nodes = cluster.get("/api/v1/nodes")["items"]
    ready = [
        node
        for node in nodes
        if any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"]["conditions"])
    ]
    return len(ready) == cluster.plan.nodes


def _proxies_ready(cluster: Cluster) -> bool:
    for index in range(cluster.plan.nodes):
        _answer(f"http://{cluster.plan.node_address(index)}:10256/healthz")
    return True


def _names_ready(cluster: Cluster) -> bool:
    names = cluster.get("/apis/apps/v1/namespaces/kube-system/deployments/coredns")
    if names["status"].get("availableReplicas", 0) != cluster.plan.nodes:
        return False
    socket.create_connection((cluster.plan.dns_service, 53), timeout=_PROBE_TIMEOUT_S).close()
    return True


def _ended(cluster: Cluster) -> list[str]:
    folder = Path(cluster.plan.state) / "ended"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _last_words(cluster: Cluster, parts: list[str]) -> str:
    lines = []
    for part in parts:
        text = cluster.log(part)
        # What follows a panic is longer than what it says.
        text = text[max(text.rfind("panic: "), 0) :]
        said = text.splitlines()[:_LINES] if text.startswith("panic: ") else text.splitlines()[-_LINES:]
        lines += [f"{part}: {line}" for line in said]
    return "\n".join(lines)
