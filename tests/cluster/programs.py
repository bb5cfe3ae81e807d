"""The cluster's programs, built once from the Go module beside this file into the user's cache.

A folder of the cache is whole or not there: it is filled under another name, and renamed. Its name has the
hash of the module, so that a change of the module is another folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.cluster.images import write_image
from tests.cluster.plan import POD_IMAGE, ROOT, ClusterError, cache

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KUBERNETES: Final = "1.36.3"
#: What `cluster` does is told by the name by which it is called.
NAMES: Final = (
    "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl",
    "coredns", "metrics-server", "network-policies", "volumes",
)  # fmt: skip
_MODULE: Final = Path(__file__).parent / "go"
_VERSION: Final = "k8s.io/component-base/version"
_LINK: Final = (
    f"-s -w -X {_VERSION}.gitVersion=v{KUBERNETES} "
    f"-X {_VERSION}.gitMajor={KUBERNETES.split('.')[0]} -X {_VERSION}.gitMinor={KUBERNETES.split('.')[1]}"
)
_NEEDED_BYTES: Final = 6 * 2**30
_TIMEOUT_S: Final = 3_600
#: Fetching one is 70 MB.
_GO_TIMEOUT_S: Final = 700
#: What timeout(1) ends with then.
_TIMED_OUT: Final = 124


def programs(
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    needed_bytes: int = _NEEDED_BYTES,
    timeout_s: float = _TIMEOUT_S,
) -> Path:
    """The folder of the programs, of the image of tests' pods (pod.tar), and of what the build took.

    The first use builds them, which takes minutes; of two at once one builds and the other waits for it.

    Raises:
        ClusterError: there is no Go that is new enough, the disk is full, or the build failed or did not end.
    """
    folder = folder or cache()
    built = folder / f"{KUBERNETES}-{_fingerprint()}"
    if built.is_dir():
        return built
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if not built.is_dir():
            _check_disk(folder, needed_bytes)
            _build(built, {**os.environ, **(environment or {})}, timeout_s)
    return built


def build_report(built: Path) -> dict[str, float]:
    """How many `seconds` it took, and the share of packages that had to be `compiled` for it."""
    report: dict[str, float] = json.loads((built / "build.json").read_text())
    return report


def _fingerprint() -> str:
    digest = hashlib.sha256(f"{_LINK} {platform.machine()} {' '.join(NAMES)}".encode())
    for file in sorted(path for path in _MODULE.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(_MODULE)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One build at a time; what a killed one left is removed."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in folder.glob("building-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
    finally:
        os.close(lock)


def _check_disk(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise ClusterError(
            f"the build needs {needed_bytes >> 30} GiB on the disk of {folder}, "
            f"{free / 2**30:.1f} are free: make room, or name another disk by XDG_CACHE_HOME"
        )


def _build(built: Path, environment: Mapping[str, str], timeout_s: float) -> None:
    go = _go(environment)
    sys.stderr.write(f"Building Kubernetes {KUBERNETES} into {built}, once; this takes minutes\n")
    begin = time.monotonic()
    # A killed Go has no time to remove what it is at; the next build does.
    with tempfile.TemporaryDirectory("", "building-", built.parent, ignore_cleanup_errors=True) as aside:
        in_module = partial(_in_module, {**environment, "GOTMPDIR": aside}, timeout_s, go)
        to_compile = _to_compile(in_module("list", "-deps", "-f", "{{.Stale}}", "./cluster").split())
        part = Path(aside) / "whole"
        part.mkdir()
        for name in ("cluster", "pod"):
            in_module("build", "-ldflags", _LINK, "-o", str(part / name), f"./{name}")
        for name in NAMES:
            (part / name).symlink_to("cluster")
        write_image(part / "pod.tar", POD_IMAGE, part / "pod")
        report = {"seconds": round(time.monotonic() - begin, 1), "compiled": to_compile}
        (part / "build.json").write_text(json.dumps(report))
        part.rename(built)


def _go(environment: Mapping[str, str]) -> str:
    """One that is new enough, fetched if there is none."""
    program = ROOT / ".ci" / "go"
    found = subprocess.run(
        # That ends what it has started, too, and lets it remove what it has fetched of one.
        ("timeout", str(_GO_TIMEOUT_S), program),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode == _TIMED_OUT:
        raise ClusterError(f"{program} did not find or fetch a Go in {_GO_TIMEOUT_S} s")
    if found.returncode != 0:
        said = found.stderr.splitlines() or [f"{program} ended with {found.returncode} and said nothing"]
        raise ClusterError(said[-1])
    return found.stdout.strip()


def _to_compile(stale: list[str]) -> float:
    """The share of the packages that Go has not compiled before; 1.0 on a machine that never built this."""
    return round(stale.count("true") / len(stale), 2) if stale else 1.0


def _in_module(environment: Mapping[str, str], timeout_s: float, go: str, *arguments: str) -> str:
    try:
        done = subprocess.run(
            # It dies with whoever waits for it.
            ("setpriv", "--pdeathsig", "TERM", go, *arguments),
            cwd=_MODULE,
            env={**environment, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(
            f"the cluster's programs could not be built: go {arguments[0]} did not end in {timeout_s:g} s"
        ) from None
    if done.returncode != 0:
        last = "\n".join(done.stderr.splitlines()[-15:])
        raise ClusterError(
            f"the cluster's programs could not be built (go ended with {done.returncode}):\n{last}"
        )
    return done.stdout
