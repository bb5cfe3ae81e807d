"""`make cluster-up`, `cluster-down`, `cluster-load`, `cluster-shell` and `bench-cluster`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from images.layout import Layout
from images.source import StaleError, check_sources, source_digest
from tests.cluster.cluster import SHARED, Cluster, running_cluster, shared_cluster, stop
from tests.cluster.plan import ROOT, ClusterError, home
from tests.cluster.preflight import check_machine, check_rights
from tests.cluster.programs import build_report, programs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: The share of packages to compile in a build that counts as cold; other programs share some with it.
_COLD: Final = 0.8
_MOST_COLD_BUILD_S: Final = 720.0
_MOST_START_S: Final = 25.0


def main() -> int:
    """Does what the arguments say; problems are said on standard error, and the exit code is 1."""
    parser = argparse.ArgumentParser(prog="tests.cluster")
    commands = parser.add_subparsers(required=True)
    verbs = {"build": _build, "up": _up, "down": _down, "load": _load, "shell": _shell, "bench": _bench}
    for name, run in verbs.items():
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        if name == "down":
            command.add_argument("--force", action="store_true", help="also while tests use it")
        if name == "load":
            command.add_argument("image", nargs="+", help="identity, or tlsy/identity:dev")
            command.add_argument("--layout", type=Path, default=ROOT / "build" / "images" / "oci")
        if name == "shell":
            command.add_argument("--node", default="", help="inside a node, such as node-0")
        if name == "bench":
            command.add_argument(
                "--cold", action="store_true", help="build again, with nothing compiled or fetched"
            )
    arguments = parser.parse_args()
    try:
        return int(arguments.run(arguments) or 0)
    except ClusterError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _build(_: argparse.Namespace) -> None:
    _say(str(programs()))


def _up(_: argparse.Namespace) -> None:
    begin = time.monotonic()
    with running_cluster(SHARED, stay=True) as cluster:
        _say(f"The cluster is up, after {time.monotonic() - begin:.1f} s: {cluster.plan.nodes} nodes")
        names = ("KUBECONFIG", "KUBECACHEDIR")
        settings = " ".join(f"{name}={cluster.environment()[name]}" for name in names)
        _say(f"  export {settings} PATH={cluster.plan.programs}:$PATH")
        _say("  make cluster-shell    a shell with these     make cluster-down    ends it")


def _down(arguments: argparse.Namespace) -> None:
    check_rights()
    _say("The cluster is gone" if stop(force=arguments.force) else "There is no cluster")


def _running() -> Cluster:
    check_rights()
    cluster = shared_cluster()
    if cluster is None:
        raise ClusterError("no cluster is up: make cluster-up")
    return cluster


def _load(arguments: argparse.Namespace) -> None:
    for name in load(_running(), Layout(arguments.layout), arguments.image):
        _say(f"{name} is on every node; with a tag other than latest, or imagePullPolicy: Never, pods run it")


def load(cluster: Cluster, layout: Layout, images: Sequence[str]) -> Iterator[str]:
    """Gives all nodes these images, and tells the name of each that they have.

    Raises:
        ClusterError: one is not there; or one is of other sources than these, and none is given.
    """
    names = [image if "/" in image else f"tlsy/{image}:dev" for image in images]
    try:
        check_sources(layout, names, source_digest())
        for name in names:
            cluster.import_built(layout, name)
            yield name
    except StaleError as error:
        raise ClusterError(str(error)) from None
    except LookupError as error:
        raise ClusterError(f"{error}: make images") from None


def _shell(arguments: argparse.Namespace) -> int:
    cluster = _running()
    try:
        cluster.check()
    except ClusterError as error:  # to look at it is what the shell may be for
        sys.stderr.write(f"{error}\n")
    return subprocess.call(
        (*cluster.entering(arguments.node), "bash") if arguments.node else ("bash",), env=_prompting(cluster)
    )


def _prompting(cluster: Cluster) -> dict[str, str]:
    return {**cluster.environment(), "PS1": "cluster \\w \\$ ", "debian_chroot": "cluster"}


def missed(figures: dict[str, float | None]) -> list[str]:
    """The figures that are worse than they may be; one that was not measured is not."""
    most = {"cold_build_s": _MOST_COLD_BUILD_S, "start_s": _MOST_START_S}
    return [name for name, limit in most.items() if (figures[name] or 0.0) > limit]


def _bench(arguments: argparse.Namespace) -> int:
    check_machine()  # before minutes of building
    if arguments.cold:
        with tempfile.TemporaryDirectory(prefix="tlsy-cold-", dir=home().parent) as empty:
            nothing = {"GOCACHE": f"{empty}/compiled", "GOMODCACHE": f"{empty}/fetched"}
            cold = build_report(programs(Path(empty) / "built", nothing))
    else:
        cold = build_report(programs())
    begin = time.monotonic()
    with running_cluster() as cluster:
        start_s = time.monotonic() - begin
        nodes = cluster.plan.nodes
    stopped_s = time.monotonic() - begin - start_s
    figures: dict[str, float | None] = {
        # Unknown here, if most had been compiled before: COLD=1 measures it.
        "cold_build_s": cold["seconds"] if cold["compiled"] >= _COLD else None,
        "start_s": round(start_s, 1),
        "stop_s": round(stopped_s, 1),
        "nodes": nodes,
    }
    worse = missed(figures)
    if worse:
        sys.stderr.write(f"missed: {', '.join(worse)}\n")
    _say(json.dumps(figures))
    return int(bool(worse))


if __name__ == "__main__":
    sys.exit(main())
