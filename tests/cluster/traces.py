"""What a cluster could leave on a machine."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Final

import psutil

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
    """By kind; of processes and files those whose command line or name has one of the marks."""
    return {
        "processes": frozenset(_processes(marks)),
        "mounts": frozenset(_mounts((*marks, " tlsy "))),
        "devices": frozenset(path.name for path in Path("/sys/class/net").iterdir()),
        "routes": frozenset(_says("ip", "-4", "route", "show", "table", "all")),
        "rules": frozenset(_COUNTERS.sub("", line) for line in _says("iptables-save") if line[:1] != "#"),
        "groups": frozenset(folder for folder, _, _ in os.walk("/sys/fs/cgroup") if "tlsy" in folder),
        "files": frozenset(_files(marks)),
        "settings": frozenset(
            f"{each}={(Path('/proc/sys') / each).read_text()}"
            for each in _TUNABLES
            if (Path("/proc/sys") / each).exists()
        ),
    }


def _processes(marks: tuple[str, ...]) -> list[str]:
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if any(mark in line for mark in marks):
            found.append(f"{process.info['pid']} {line}")
    return found


def _mounts(marks: tuple[str, ...]) -> list[str]:
    """Of every mount namespace: a process in one of its own keeps what is mounted there."""
    namespaces: dict[str, list[str]] = {}
    for pid in psutil.pids():
        try:
            namespace = str(Path(f"/proc/{pid}/ns/mnt").readlink())
            if namespace not in namespaces:
                lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
                namespaces[namespace] = [
                    line.split(" ", 3)[3] for line in lines if any(mark in line for mark in marks)
                ]
        except OSError:
            continue
    return [line for lines in namespaces.values() for line in lines]


def _files(marks: tuple[str, ...]) -> list[str]:
    names = []
    for folder in (Path(each).expanduser() for each in _FOLDERS):
        if folder.is_dir():
            names += [str(path) for path in folder.iterdir()]
    return [
        name
        for name in names
        # Other programs come and go in these two.
        if any(mark in name for mark in (*marks, "tlsy-cl", "kube"))
        or not name.startswith(("/tmp/", "/run/"))
    ]


def _says(*command: str) -> list[str]:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
