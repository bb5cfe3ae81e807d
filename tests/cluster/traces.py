"""What a cluster could leave on a machine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Final

import psutil

#: Its devices, and rules and routes that name them or its chains.
_DOCKERS: Final = re.compile(r"docker|DOCKER|\bbr-[0-9a-f]{12}|\bveth[0-9a-f]{7}\b")
_COUNTERS: Final = re.compile(r"\[\d+:\d+\]")
#: Where Kubernetes, containerd and kubectl put things if nothing is said.
_FOLDERS: Final = (
    "/etc", "/etc/cni", "/etc/kubernetes", "/opt", "/opt/cni", "/run", "/run/containerd", "/run/lock",
    "/run/netns", "/tmp", "/usr/libexec", "/var/lib",
    "/var/lib/cni", "/var/lib/containerd", "/var/lib/kubelet", "/var/log",
    "/var/log/pods", "/var/run/kubernetes", "~", "~/.kube",
)  # fmt: skip
_TUNABLES: Final = (
    "vm/overcommit_memory",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_tcp_timeout_established",
)


def traces(*marks: str) -> dict[str, frozenset[str]]:
    """By kind; of processes and files those whose command line or name has one of the marks.

    What clusters without a mark have, that run at the moment, is theirs and left out, as is what Docker has.
    """
    others = _others(marks)
    found = {
        "processes": _processes(marks),
        "mounts": _mounts((*marks, " tlsy "), others),
        "devices": [path.name for path in Path("/sys/class/net").iterdir()],
        "routes": _says("ip", "-4", "route", "show", "table", "all"),
        "rules": [_COUNTERS.sub("", line) for line in _says("iptables-save") if line[:1] != "#"],
        "groups": [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if "tlsy" in folder],
        "files": _files(marks),
        "settings": [
            f"{each}={path.read_text()}" for each in _TUNABLES if (path := Path("/proc/sys") / each).exists()
        ],
    }
    others += _others(marks)
    return {
        kind: frozenset(
            line for line in lines if not _DOCKERS.search(line) and not any(each in line for each in others)
        )
        for kind, lines in found.items()
    }


def _others(marks: tuple[str, ...]) -> list[str]:
    """The state directories and keys of clusters that have keepers and none of the marks."""
    found = []
    for line in _processes(("tests.cluster.keeper",)):
        if any(mark in line for mark in marks):
            continue
        state = line.split("tests.cluster.keeper ")[1].split()[0]
        found.append(state)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found.append(str(json.loads((Path(state) / "plan.json").read_text())["key"]))
    return found


def _processes(marks: tuple[str, ...]) -> list[str]:
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if any(mark in line for mark in marks):
            found.append(f"{process.info['pid']} {line}")
    return found


def _mounts(marks: tuple[str, ...], others: list[str]) -> list[str]:
    """Of every mount namespace: a process in one of its own keeps what is mounted there."""
    namespaces: dict[str, list[str]] = {}
    for pid in psutil.pids():
        try:
            namespace = str(Path(f"/proc/{pid}/ns/mnt").readlink())
            if namespace not in namespaces:
                lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
                namespaces[namespace] = [line.split(" ", 3)[3] for line in lines]
        except OSError:
            continue
    return [
        line
        for lines in namespaces.values()
        if not any(other in line for line in lines for other in others)
        for line in lines
        if any(mark in line for mark in marks)
    ]


def _files(marks: tuple[str, ...]) -> list[str]:
    names = []
    for folder in (Path(each).expanduser() for each in _FOLDERS):
        if folder.is_dir():
            names += [str(path) for path in folder.iterdir()]
    return [
        name
        for name in names
        # Other programs come and go in these, and logs are named anew.
        if any(mark in name for mark in (*marks, "tlsy-cl", "kube", "/var/log/pods", "/var/log/containers"))
        or not name.startswith(("/tmp/", "/run/", "/var/log/"))
    ]


def _says(*command: str) -> list[str]:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
