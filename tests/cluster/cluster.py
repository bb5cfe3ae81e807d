"""A running cluster: how it is started, used and ended."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import re
import signal
import socket
import ssl
import string
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import psutil

from tests.cluster.direct import answer, environment
from tests.cluster.keeper import (
    KEEPER_FILE,
    PLAN_FILE,
    REMOVE_TIMEOUT_S,
    STAY,
    UP_FILE,
    alive,
    claim,
    give_back,
    is_empty,
)
from tests.cluster.plan import POD_IMAGE, PROGRAMS_INSIDE, ROOT, ClusterError, Plan, home, plan_of
from tests.cluster.preflight import check_machine
from tests.cluster.processes import wait_until
from tests.cluster.programs import programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from images.layout import Layout

#: The cluster of `make cluster-up`.
SHARED: Final = "up"
_NAMES: Final = re.compile(rf"{SHARED}|of-\d+")
_NODES: Final = 2
_START_TIMEOUT_S: Final = 120.0
_STOP_TIMEOUT_S: Final = 120.0
_CALL_TIMEOUT_S: Final = 60.0
_IMPORT_TIMEOUT_S: Final = 300.0
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
        """This process's without proxies, with the cluster's kubectl first on the PATH and its kubeconfig."""
        path = f"{self.plan.programs}:{os.environ['PATH']}"
        cache = f"{self.plan.state}/kubectl"
        return {**environment(), "PATH": path, "KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": cache}

    def kubectl(self, *arguments: str, stdin: str = "", timeout_s: float = _CALL_TIMEOUT_S) -> str:
        """What kubectl prints.

        Raises:
            ClusterError: it failed; with what it said, or with the part of the cluster that ended.
        """
        try:
            done = subprocess.run(
                (f"{self.plan.programs}/kubectl", *arguments),
                env=self.environment(),
                input=stdin,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            self.check()
            raise ClusterError(f"kubectl {' '.join(arguments)}: no answer in {timeout_s:.0f} s") from None
        if done.returncode != 0:
            self.check()
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
        return cast("dict[str, Any]", json.loads(answer(self.plan.api + path, trusted)))

    def import_image(self, file: Path) -> None:
        """Gives all nodes the images of a file of `docker save`.

        Pods whose images have a tag other than `latest`, or that say `imagePullPolicy: Never`, run on them.

        Raises:
            ClusterError: one does not take it, or not in time.
        """

        def import_to(node: str) -> None:
            where = (f"--address={self.plan.state}/{node}/containerd.sock", "--namespace=k8s.io")
            what = f"the import of {file} to {node}"
            _run(what, _IMPORT_TIMEOUT_S, "ctr", *where, "images", "import", str(file))

        with ThreadPoolExecutor() as at_once:
            list(at_once.map(import_to, self.plan.node_names()))

    def import_built(self, layout: Layout, name: str) -> None:
        """Gives all nodes an image of a layout, by the name that manifests have for it.

        Raises:
            LookupError: the layout does not have it.
            ClusterError: as `import_image`.
        """
        with tempfile.NamedTemporaryFile(suffix=".tar") as file:
            layout.archive(name, file)
            file.flush()
            self.import_image(Path(file.name))

    def entering(self, node: str) -> tuple[str, ...]:
        """What comes before a command that shall run on a node.

        Raises:
            ClusterError: there is no such node.
        """
        ending = ["-m", "tests.cluster.node", node.removeprefix("node-")]
        keeper = _keeper(Path(self.plan.state))
        for process in psutil.Process(keeper[0]).children(recursive=True) if keeper else ():
            line: list[str] = []
            # Pods' probes begin and end meanwhile.
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
            if line[-3:] == ending and Path(line[0]).name.startswith("python"):
                return ("nsenter", f"--target={process.pid}", "--mount", "--net", "--pid", "--uts", "--ipc")
        raise ClusterError(f"there is no node {node}: {', '.join(self.plan.node_names())}")

    def log(self, part: str) -> str:
        """The log of one of its programs, such as `control/kube-apiserver` or `node-0/kubelet`."""
        return (Path(self.plan.state) / "log" / f"{part}.log").read_text(errors="replace")

    def check(self) -> None:
        """None of its programs ends by itself: whoever waits for something else would wait in vain.

        Raises:
            ClusterError: one has; with its name, its exit code and the end of its log.
        """
        ended = _ended(self)
        if ended:
            codes = ", ".join(f"{part} ended with {code}" for part, code in ended.items())
            words = _last_words(self, list(ended))
            raise ClusterError(f"the cluster is broken (make cluster-down ends it): {codes}\n{words}")


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
        env=environment(),
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
            (state / UP_FILE).touch()
        yield cluster
    finally:
        keeper.stdin.close()
        keeper.stdout.close()
        if not kept:
            keeper.wait(_STOP_TIMEOUT_S)


def shared_cluster() -> Cluster | None:
    """The one of `make cluster-up`, if there is one; one that is still starting is none yet."""
    state = home() / SHARED
    keeper = _keeper(state)
    if keeper is None or not alive(keeper) or not (state / UP_FILE).exists():
        return None
    return Cluster(plan_of((state / PLAN_FILE).read_text()))


@contextlib.contextmanager
def used_cluster() -> Iterator[Cluster | None]:
    """As `shared_cluster`, for tests: meanwhile only force ends it. Under CI there is none."""
    with contextlib.ExitStack() as stack:
        cluster = None
        with contextlib.suppress(OSError):
            if not os.environ.get("CI"):
                file = stack.enter_context((home() / SHARED / UP_FILE).open())
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # blocked: it is being ended
                cluster = shared_cluster()
        yield cluster


def stop(*, force: bool = False) -> bool:
    """Ends the cluster of `make cluster-up`, also if its keeper was killed; whether there was one.

    Raises:
        ClusterError: tests use it, and it is not ended by force.
    """
    state = home() / SHARED
    keeper = _keeper(state)
    with contextlib.nullcontext() if force else _unused(state / UP_FILE):
        if keeper is not None and alive(keeper):
            os.kill(keeper[0], signal.SIGTERM)
            try:
                wait_until(lambda: not alive(keeper), "the end of the cluster", _STOP_TIMEOUT_S)
            except TimeoutError:
                os.kill(keeper[0], signal.SIGKILL)
                wait_until(lambda: not alive(keeper), "the end of the cluster's keeper", _STOP_TIMEOUT_S)
        sweep()
    return keeper is not None


def sweep(timeout_s: float = REMOVE_TIMEOUT_S) -> None:
    """Removes what clusters left whose keepers were killed.

    Raises:
        ClusterError: the kernel does not let go of something of it in time.
    """
    if not home().is_dir():
        return
    for state in home().iterdir():
        # One that died at once left its directory empty; in the home there may be others' too.
        if (state / KEEPER_FILE).exists() or (_NAMES.fullmatch(state.name) and is_empty(state)):
            try:
                lock = claim(state)
            except ClusterError:
                continue  # another is running there, or starts
            give_back(state, lock, timeout_s)


@contextlib.contextmanager
def _unused(file: Path) -> Iterator[None]:
    """Nobody begins to use the cluster of this file meanwhile."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            opened = stack.enter_context(file.open())
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                opened.close()
                raise ClusterError(
                    f"the cluster is used by {_users(file)}: wait for the end of that, or end the cluster "
                    "all the same (make cluster-down FORCE=1)"
                ) from None
        yield


def _users(file: Path) -> str:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(file.resolve()) in {each.path for each in process.open_files()}:
                found.append(f"process {process.pid} ({' '.join(process.cmdline())}, in {process.cwd()})")
    return ", ".join(found) or "a process that cannot be seen from here"


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
    cluster.check()
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
        answer(f"http://{cluster.plan.node_address(index)}:10256/healthz")
    return True


def _names_ready(cluster: Cluster) -> bool:
    names = cluster.get("/apis/apps/v1/namespaces/kube-system/deployments/coredns")
    if names["status"].get("availableReplicas", 0) != cluster.plan.nodes:
        return False
    socket.create_connection((cluster.plan.dns_service, 53), timeout=_PROBE_TIMEOUT_S).close()
    return True


def _run(what: str, timeout_s: float, *command: str) -> None:
    try:
        done = subprocess.run(
            command,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{what}: not in {timeout_s:.0f} s") from None
    if done.returncode != 0:
        raise ClusterError(f"{what}: {done.stderr.strip()}")


def _ended(cluster: Cluster) -> dict[str, str]:
    """Part to exit code."""
    folder = Path(cluster.plan.state) / "ended"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def _last_words(cluster: Cluster, parts: list[str]) -> str:
    lines = []
    for part in parts:
        text = cluster.log(part)
        # What follows a panic is longer than what it says.
        text = text[max(text.rfind("panic: "), 0) :]
        said = text.splitlines()[:_LINES] if text.startswith("panic: ") else text.splitlines()[-_LINES:]
        lines += [f"{part}: {line}" for line in said]
    return "\n".join(lines)
