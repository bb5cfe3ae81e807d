"""However a cluster ends, the machine is as it was before: a look at all that it could leave says so."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.cluster.cluster import sweep
from tests.cluster.keeper import cgroups
from tests.cluster.plan import ROOT, ClusterError, Plan
from tests.cluster.preflight import check_machine
from tests.cluster.processes import wait_until
from tests.cluster.programs import programs
from tests.cluster.traces import traces

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.cluster

CLUSTER: Final = (sys.executable, "-m", "tests.cluster")
#: A shell ends with what it was told to; make says 2 for whatever is not 0.
SHELL: Final = ("make", "--no-print-directory", "cluster-shell")
#: Starts a cluster for as long as it lives, which it says when it has one.
OWNER: Final = (
    "from tests.cluster.cluster import running_cluster\n"
    "with running_cluster() as cluster: print(cluster.plan.state, flush=True); input()"
)
#: One of which a part is killed, and who waits for something else meanwhile.
BROKEN: Final = """
import os, psutil, signal
from tests.cluster.cluster import running_cluster
from tests.cluster.namespace import Namespace
with running_cluster() as cluster:
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or [""]
        if line[0].endswith("/network-policies") and cluster.plan.node_names()[1] in " ".join(line):
            if os.path.samefile(f"/proc/{process.pid}/root/run/tlsy", cluster.plan.state):
                process.kill()
    Namespace(cluster, "any").soon(lambda: False, "what never happens")
"""
TIMEOUT_S: Final = 180  # more than a start may take, so that its reason is told
GONE_TIMEOUT_S: Final = 60


class Machine:
    """This machine, with a home of clusters that no other test uses."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._before = traces(str(home))

    def run(self, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            input=stdin,
            cwd=ROOT,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=self._environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def is_as_before(self) -> None:
        """Processes that were killed take a moment to be gone."""
        try:
            wait_until(
                lambda: traces(str(self.home)) == self._before, "the end of all traces", GONE_TIMEOUT_S
            )
        except TimeoutError:
            now = traces(str(self.home))
            assert [f"{kind}: {line}" for kind in now for line in now[kind] ^ self._before[kind]] == []
        assert list(self.home.iterdir()) == []

    def keeper(self) -> int:
        lines = (line for line in traces(str(self.home))["processes"] if "tests.cluster.keeper" in line)
        return int(next(lines).split()[0])

    def _environment(self) -> dict[str, str]:
        """With proxies that nobody is at: a cluster has nothing to ask them."""
        names = [f"{scheme}_proxy" for scheme in ("http", "https", "all")]
        proxies = dict.fromkeys((*names, *map(str.upper, names)), "http://127.0.0.1:1")
        return {**os.environ, **proxies, "TLSY_CLUSTER_HOME": str(self.home / "home")}


@pytest.fixture
def machine() -> Iterator[Machine]:
    check_machine()  # before minutes of building
    programs()
    home = Path(tempfile.mkdtemp(prefix="tlsy-"))
    machine = Machine(home)
    yield machine
    machine.run(*CLUSTER, "down")
    shutil.rmtree(home)


def test_after_down_nothing_is_left(machine: Machine) -> None:
    up = machine.run(*CLUSTER, "up")
    assert up.returncode == 0, up.stderr
    again = machine.run(*CLUSTER, "up")
    assert again.returncode == 1
    assert "use it (make cluster-shell) or end it (make cluster-down)" in again.stderr
    shell = machine.run(*SHELL, stdin="kubectl get nodes --output=name\nexit 3\n")
    assert (shell.stdout, shell.returncode) == ("node/node-0\nnode/node-1\n", 2), shell.stderr
    assert machine.run(*SHELL, "NODE=node-1", stdin="hostname\n").stdout == "node-1\n"
    assert "there is no node node-7: node-0, node-1" in machine.run(*SHELL, "NODE=node-7").stderr
    assert "has no image tlsy/nothing:dev" in machine.run(*CLUSTER, "load", "nothing").stderr
    assert machine.run(*CLUSTER, "down").stdout == "The cluster is gone\n"
    machine.is_as_before()
    assert machine.run(*CLUSTER, "down").stdout == "There is no cluster\n"
    assert "no cluster is up: make cluster-up" in machine.run(*SHELL).stderr


def test_a_cluster_ends_with_its_owner_however_that_dies(machine: Machine) -> None:
    owner = machine.start(sys.executable, "-c", OWNER)
    assert owner.stdout is not None
    assert owner.stdout.readline().startswith(str(machine.home))
    owner.kill()
    owner.communicate()
    machine.is_as_before()


def test_what_a_killed_keeper_left_is_removed_by_down(machine: Machine) -> None:
    up = machine.run(*CLUSTER, "up")
    assert up.returncode == 0, up.stderr
    os.kill(machine.keeper(), signal.SIGKILL)
    assert machine.run(*CLUSTER, "down").stdout == "The cluster is gone\n"
    machine.is_as_before()


def test_what_the_kernel_does_not_let_go_of_is_told_and_the_next_removes_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TLSY_CLUSTER_HOME", str(tmp_path))
    state = tmp_path / "up"
    state.mkdir()
    left = Plan(key=secrets.token_hex(4), state=str(state), programs="", nodes=0, network=0)
    for name, text in (("keeper.json", "[1, 0]"), ("plan.json", left.text())):
        (state / name).write_text(text)
    cgroup = cgroups(left)[0]
    cgroup.mkdir()
    with subprocess.Popen("cat", stdin=subprocess.PIPE) as inside:
        (cgroup / "cgroup.procs").write_text(str(inside.pid))
        with pytest.raises(ClusterError, match=f"the removal of {cgroup}: not in 0 s"):
            sweep(timeout_s=0.1)
    sweep()
    assert not state.exists()
    assert not cgroup.exists()


@pytest.mark.parametrize("made", ["plan.json", "kubeconfig", "node-1/containerd.sock"])
def test_a_start_that_is_interrupted_leaves_nothing(machine: Machine, made: str) -> None:
    up = machine.start(*CLUSTER, "up")
    wait_until(lambda: any(machine.home.glob(f"home/*/{made}")), made, TIMEOUT_S)
    up.send_signal(signal.SIGINT)
    up.communicate()
    assert up.returncode == 130
    machine.is_as_before()


def test_a_part_that_is_killed_later_is_told_to_who_waits(machine: Machine) -> None:
    told = machine.run(sys.executable, "-c", BROKEN)
    assert "node-1/network-policies ended with -9" in told.stderr
    machine.is_as_before()


def test_a_full_disk_is_said_and_nothing_is_made(machine: Machine) -> None:
    small = "mount -t tmpfs -o size=16m tlsy-small {home} && exec {python} -m tests.cluster up"
    command = small.format(home=machine.home, python=sys.executable)
    up = machine.run("unshare", "--mount", "sh", "-c", command)
    assert up.returncode == 1
    assert "0.0 GiB are free" in up.stderr
    assert "make room, or name another disk by TLSY_CLUSTER_HOME" in up.stderr
    machine.is_as_before()


def test_a_disk_too_full_for_the_build_is_said(machine: Machine) -> None:
    small = "mount -t tmpfs -o size=16m tlsy-small {home} && exec {python} -m tests.cluster build"
    command = small.format(home=machine.home, python=sys.executable)
    build = machine.run("unshare", "--mount", "env", f"XDG_CACHE_HOME={machine.home}", "sh", "-c", command)
    assert build.returncode == 1
    assert re.search(
        r"the build needs 6 GiB on the disk of .*: make room, or name another disk by XDG", build.stderr
    )


def test_a_root_that_may_not_make_devices_is_told_and_nothing_is_left(machine: Machine) -> None:
    bound = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    up = machine.run(*bound, *CLUSTER, "up")
    assert up.returncode == 1
    assert re.search(r"ip link add tlsy.*not permitted; .* in a container, a privileged one", up.stderr)
    machine.is_as_before()


def test_addresses_that_are_all_taken_are_said_and_nothing_is_left(machine: Machine) -> None:
    taken = (
        f"ip link set lo up && ip route add 10.0.0.0/8 dev lo && exec {sys.executable} -m tests.cluster up"
    )
    up = machine.run("unshare", "--net", "sh", "-c", taken)
    assert up.returncode == 1
    assert "are all taken (ip route): end another cluster (make cluster-down)" in up.stderr
    machine.is_as_before()


def test_a_part_that_ends_is_named_with_its_last_words(machine: Machine) -> None:
    """The programs are there, but one of them is none: what a cache that others have touched looks like."""
    broken = machine.home / "cache"
    shutil.copytree(programs(), broken / "tlsy" / "cluster" / programs().name, symlinks=True)
    etcd = broken / "tlsy" / "cluster" / programs().name / "etcd"
    etcd.unlink()
    etcd.write_text("#!/bin/sh\necho this is no database >&2; exit 3\n")
    etcd.chmod(0o755)
    up = machine.run("env", f"XDG_CACHE_HOME={broken}", *CLUSTER, "up")
    assert up.returncode == 1
    assert "control/etcd ended" in up.stderr
    assert "this is no database" in up.stderr
    shutil.rmtree(broken)
    machine.is_as_before()
