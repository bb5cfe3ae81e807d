"""What a machine must have to run a cluster."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Final

from tests.cluster.node import PLUGIN_FOLDERS
from tests.cluster.plan import ClusterError, home

if TYPE_CHECKING:
    from pathlib import Path

_NEEDED_BYTES: Final = 3 * 2**30
#: program: the Debian package that has it
_PROGRAMS: Final = (
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
)
_LONGEST_HOME: Final = 60


def check_machine(path: str | None = None, user: int | None = None, folder: Path | None = None) -> None:
    """By default looked for on this process's PATH, as its user, for the clusters' home.

    Raises:
        ClusterError: with all that is missing.
    """
    problems = [
        *_of_rights(os.geteuid() if user is None else user),
        *_of_programs(path),
        *_of_room(folder or home()),
    ]
    if problems:
        raise ClusterError("\n".join(("a cluster cannot run here:", *(f"- {each}" for each in problems))))


def check_rights(user: int | None = None) -> None:
    """By default of this process's user.

    Raises:
        ClusterError: it is not root.
    """
    problems = _of_rights(os.geteuid() if user is None else user)
    if problems:
        raise ClusterError(problems[0])


def _of_rights(user: int) -> list[str]:
    if user == 0:
        return []
    return ["a cluster needs root (for namespaces, mounts, devices): run this with sudo"]


def _of_programs(path: str | None) -> list[str]:
    missing = {
        package: program
        for program, package in reversed(_PROGRAMS)
        if shutil.which(program, path=path) is None
    }
    if not any((folder / "ptp").exists() for folder in PLUGIN_FOLDERS):
        missing["containernetworking-plugins"] = "ptp"
    names = ", ".join(f"'{each}'" for each in missing.values())
    command = f"apt-get install --no-install-recommends {' '.join(missing)}"
    return [f"{names} not found: {command}"] if missing else []


def _of_room(folder: Path) -> list[str]:
    problems = []
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(existing).free
    if free < _NEEDED_BYTES:
        problems.append(
            f"{free / 2**30:.1f} GiB are free on the disk of {folder}, {_NEEDED_BYTES >> 30} are needed: "
            "make room, or name another disk by TLSY_CLUSTER_HOME"
        )
    if len(str(folder)) > _LONGEST_HOME:
        problems.append(f"{folder} is too long for sockets in it: name a shorter one by TLSY_CLUSTER_HOME")
    if folder.is_relative_to("/run"):
        problems.append(f"{folder} is in /run, which clusters cover: name another by TLSY_CLUSTER_HOME")
    return problems
