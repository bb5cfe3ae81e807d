"""The one process of a cluster that is outside of it: it makes what is outside, and removes it.

That is the state directory, a network device and cgroups, all named in `plan.json` before they are made.
Everything else is inside (machine.py) and ends with the machine's first process, which ends with this one,
also when this one is killed. It locks the state directory for as long as it lives: so the next start, or
`cluster-down`, knows what a killed keeper left, and removes it.

Until it is told to `stay` it ends when its standard input does: when whoever started it is gone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import ipaddress
import json
import os
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.cluster.plan import ROOT, ClusterError, Plan, plan_of
from tests.cluster.processes import MACHINE, run, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STAY: Final = b"stay\n"
KEEPER_FILE: Final = "keeper.json"
PLAN_FILE: Final = "plan.json"
#: In the directory of one that has started, and stays. Who uses it shares a lock on this file.
UP_FILE: Final = "up"
#: In a home that was made for clusters: one without it was there before, and stays.
_MADE_FILE: Final = ".made-for-clusters"
_NETWORKS: Final = range(89, 105)
_CGROUPS: Final = Path("/sys/fs/cgroup")
REMOVE_TIMEOUT_S: Final = 60.0
_CLAIM_TIMEOUT_S: Final = 2.0
_POLL_INTERVAL_S: Final = 0.05


def main() -> None:
    """Keeps a cluster; the arguments: state directory, folder of its programs, number of nodes.

    The first line of the output tells how it went: `plan`, or `error`.
    """
    state, programs, nodes = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    wake = _signals()
    try:
        lock = claim(state)
    except (ClusterError, OSError) as error:
        _say(error=str(error))
        return
    try:
        empty(state)
        (state / KEEPER_FILE).write_text(json.dumps(identity(os.getpid())))
        plan = _laid_out(
            Plan(key=secrets.token_hex(4), state=str(state), programs=programs, nodes=nodes, network=0)
        )
        with _machine(plan) as machine:
            _say(plan=plan.text())
            _watch(machine, wake, state / "ended")
    except (ClusterError, subprocess.SubprocessError) as error:
        _say(error=str(error))
    except OSError as error:
        refused = error.errno in {errno.EPERM, errno.EACCES, errno.EROFS}
        _say(error=f"{error}; {MACHINE}" if refused else str(error))
    finally:
        try:
            give_back(state, lock)
        except ClusterError as error:
            sys.exit(str(error))


def claim(state: Path) -> int:
    """Makes the state directory and locks it; the lock is an open file.

    Raises:
        ClusterError: another keeper has it, or it holds what no cluster put there.
    """
    deadline = time.monotonic() + _CLAIM_TIMEOUT_S
    while True:
        try:
            _make_home(state.parent)
            state.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # another has removed it at this moment
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            # Another begins there at this moment, or removes what one left that died so early.
            if is_empty(state) and time.monotonic() < deadline:
                time.sleep(_POLL_INTERVAL_S)
                continue
            raise ClusterError(
                f"a cluster is running in {state}: use it (make cluster-shell) or end it (make cluster-down)"
            ) from None
        # Between opening and locking its last keeper may have removed it.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), state.stat()):
                break
        os.close(lock)
    if any(state.iterdir()) and not (state / KEEPER_FILE).exists():
        os.close(lock)
        raise ClusterError(
            f"{state} holds something else than a cluster: name another home by TLSY_CLUSTER_HOME"
        )
    return lock


def _make_home(home: Path) -> None:
    try:
        home.mkdir(parents=True)
    except FileExistsError:
        return
    (home / _MADE_FILE).touch()


def is_empty(state: Path) -> bool:
    """Whether nothing is in a directory; what is no directory, or gone, is not empty."""
    try:
        return not any(state.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False


def give_back(state: Path, lock: int, timeout_s: float = REMOVE_TIMEOUT_S) -> None:
    """Removes what was claimed, with all that a cluster left; after the last also the home that was made.

    Raises:
        ClusterError: as `empty`; the next who claims it can try again.
    """
    try:
        empty(state, timeout_s)
        state.rmdir()
        with contextlib.suppress(OSError):
            if [path.name for path in state.parent.iterdir()] == [_MADE_FILE]:
                (state.parent / _MADE_FILE).unlink()
                state.parent.rmdir()
    finally:
        os.close(lock)


def empty(state: Path, timeout_s: float = REMOVE_TIMEOUT_S) -> None:
    """Removes what a cluster left outside, and all in its state directory; who calls has claimed that.

    Raises:
        ClusterError: the kernel does not let go of it in time.
    """
    with contextlib.suppress(FileNotFoundError):
        plan = plan_of((state / PLAN_FILE).read_text())
        try:
            wait_until(partial(_disconnected, plan), f"the removal of {plan.device}", timeout_s)
            for cgroup in cgroups(plan):
                wait_until(partial(_removed, cgroup), f"the removal of {cgroup}", timeout_s)
        except TimeoutError as error:
            raise ClusterError(str(error)) from None
    # What tells that this is a cluster's goes last.
    for path in sorted(state.iterdir(), key=lambda each: each.name == KEEPER_FILE):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def identity(pid: int) -> list[int]:
    """A process: its number and the tick at which it started, since numbers are used again.

    Raises:
        FileNotFoundError: there is none of this number.
    """
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] == "Z":
        raise FileNotFoundError(pid)
    return [pid, int(fields[19])]


def alive(process: list[int]) -> bool:
    """Whether a process is still there."""
    try:
        return identity(process[0]) == process
    except (FileNotFoundError, ProcessLookupError):
        return False


def free_networks(routes: Iterable[str]) -> Iterator[int]:
    """The networks that overlap with none of these destinations of routes."""
    taken = [ipaddress.ip_network(route, strict=False) for route in routes]
    for number in _NETWORKS:
        candidate = ipaddress.ip_network(f"10.{number}.0.0/16")
        if not any(candidate.overlaps(other) for other in taken):
            yield number


def _signals() -> socket.socket:
    """Readable once this process is told to end."""
    wake, signals = socket.socketpair()
    signals.setblocking(False)
    signal.set_wakeup_fd(signals.detach())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return wake


def _say(**line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def _record(plan: Plan) -> None:
    aside = Path(plan.state) / f"{PLAN_FILE}.new"
    aside.write_text(plan.text())
    aside.rename(Path(plan.state) / PLAN_FILE)


def _laid_out(plan: Plan) -> Plan:
    """Makes device and cgroups; the plan with the network that was free."""
    _record(plan)
    for cgroup in cgroups(plan):
        for name in plan.node_names():
            (cgroup / name).mkdir(parents=True)
            _delegate(cgroup / name)
    _home(plan).mkdir()
    run("ip", "link", "add", plan.device, "type", "veth", "peer", "name", plan.peer)
    run("ip", "link", "set", plan.device, "up")
    routes = json.loads(subprocess.check_output(("ip", "-json", "-4", "route", "show", "table", "all")))
    for number in free_networks(route["dst"] for route in routes if route["dst"] != "default"):
        chosen = dataclasses.replace(plan, network=number)
        run("ip", "address", "add", f"{chosen.machine}/24", "dev", plan.device, "noprefixroute")
        # Of two that choose the same at once, one fails here.
        way = ("ip", "route", "add", chosen.addresses, "dev", plan.device, "src", chosen.machine)
        if subprocess.run(way, check=False, stderr=subprocess.DEVNULL).returncode == 0:
            run("ip", "route", "add", chosen.pods, "via", chosen.control, "dev", plan.device, "onlink")
            run("ip", "route", "add", chosen.services, "via", chosen.control, "dev", plan.device, "onlink")
            _record(chosen)
            return chosen
        run("ip", "address", "flush", "dev", plan.device)
    raise ClusterError(
        f"10.{_NETWORKS[0]}.0.0/16 to 10.{_NETWORKS[-1]}.0.0/16 are all taken (ip route): end another "
        "cluster (make cluster-down), or free one of them"
    )


def cgroups(plan: Plan) -> list[Path]:
    """The cluster's group in every hierarchy; in the only one where there is one (version 2)."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS / plan.cgroup]
    mounted = (path for path in sorted(_CGROUPS.iterdir()) if path.is_dir() and not path.is_symlink())
    return [path / plan.cgroup for path in mounted if (path / "cgroup.procs").exists()]


def _home(plan: Plan) -> Path:
    """The group of the machine's own processes: once it is empty they are gone."""
    own = "" if (_CGROUPS / "cgroup.controllers").exists() else "memory"
    return _CGROUPS / own / plan.cgroup / "machine"


def _delegate(cgroup: Path) -> None:
    """In version 2 what groups below may limit has to be said in each above."""
    if not (_CGROUPS / "cgroup.controllers").exists():
        return
    for group in (_CGROUPS, cgroup.parent, cgroup):
        controllers = (group / "cgroup.controllers").read_text().split()
        (group / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in controllers))


def _disconnected(plan: Plan) -> bool:
    """The kernel removes the device too, once the namespace of its other end is gone: it may be faster."""
    if (Path("/sys/class/net") / plan.device).exists():
        subprocess.run(("ip", "link", "delete", plan.device), check=False, stderr=subprocess.DEVNULL)
    return not (Path("/sys/class/net") / plan.device).exists()


def _removed(cgroup: Path) -> bool:
    if not cgroup.exists():
        return True
    try:
        for folder, _, _ in os.walk(cgroup, topdown=False):
            Path(folder).rmdir()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _machine(plan: Plan) -> Iterator[subprocess.Popen[bytes]]:
    """The cluster's first process; at the end it and all that it started are gone."""
    state = Path(plan.state)
    outside = os.open("/proc/self/ns/net", os.O_RDONLY)
    command = (
        "sh", "-c", 'echo $$ > "$0" && exec "$@"', str(_home(plan) / "cgroup.procs"),
        "unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc",
        sys.executable, "-m", "tests.cluster.machine", plan.state, str(outside),
    )  # fmt: skip
    (state / "log").mkdir()
    with (state / "log" / "machine.log").open("ab") as log:
        machine = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(outside,),
            start_new_session=True,
        )
    os.close(outside)
    try:
        yield machine
    finally:
        if machine.stdin is not None:
            machine.stdin.close()
        machine.wait(REMOVE_TIMEOUT_S)


def _watch(machine: subprocess.Popen[bytes], wake: socket.socket, notes: Path) -> None:
    """Until the machine has ended, a signal comes, or who started this is gone before it said `stay`.

    A machine that ended by itself stays to be looked at by who started it, as long as that is there.
    """
    ended = os.pidfd_open(machine.pid)
    said = b""
    with selectors.DefaultSelector() as selector:
        for source in (sys.stdin.fileno(), wake.fileno(), ended):
            selector.register(source, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select()}
            if wake.fileno() in ready:
                return
            if ended in ready:
                selector.unregister(ended)
                notes.mkdir(exist_ok=True)
                (notes / "machine").write_text(str(machine.wait()))
                if STAY in said:
                    return
            if sys.stdin.fileno() in ready:
                part = os.read(sys.stdin.fileno(), len(STAY))
                said += part
                if STAY in said and part:
                    _let_go_of_the_terminal(notes.parent / "log" / "keeper.log")
                if not part and (STAY not in said or machine.poll() is not None):
                    return
                if not part:
                    selector.unregister(sys.stdin.fileno())


def _let_go_of_the_terminal(log: Path) -> None:
    """Who reads what the start says would otherwise wait for the end of the cluster."""
    with log.open("ab") as output:
        os.dup2(output.fileno(), sys.stderr.fileno())


if __name__ == "__main__":
    main()
