"""The cache of the cluster's programs: whole or not there, whatever happens to a build."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pytest

from tests.cluster.images import write_image
from tests.cluster.plan import ROOT, ClusterError
from tests.cluster.processes import wait_until
from tests.cluster.programs import NAMES, build_report, programs

if TYPE_CHECKING:
    from pathlib import Path

#: In the place of Go: it says its version, and then does this in the place of building.
FAKE_GO: Final = """#!/bin/sh
case "$1 $2" in
"env GOVERSION") echo {version}; echo {toolchain} ;;
"list -deps") ;;
*) while [ "$1" != -o ]; do shift; done; {build} ;;
esac
"""
BUILDS: Final = 'echo built > "$2"'
HANGS: Final = 'echo half > "$2"; exec sleep 600'
FAILS: Final = "echo no space left on device >&2; exit 1"


def go(folder: Path, build: str, version: str = "go1.26.8", toolchain: str = "local") -> dict[str, str]:
    """An environment in which Go is this."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    program = bin_folder / "go"
    program.write_text(FAKE_GO.format(build=build, version=version, toolchain=toolchain))
    program.chmod(0o755)
    return {"PATH": f"{bin_folder}:{os.environ['PATH']}"}


def test_programs_are_built_once(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    built = programs(cache, go(tmp_path, BUILDS))
    assert {path.name for path in built.iterdir()} == {*NAMES, "cluster", "pod", "pod.tar", "build.json"}
    assert build_report(built)["compiled"] == 1.0
    assert programs(cache, go(tmp_path, FAILS)) == built


def test_of_two_at_once_one_builds_and_the_other_waits_for_it(tmp_path: Path) -> None:
    environment = go(tmp_path, f'echo "$2" >> {tmp_path}/made; {BUILDS}')
    with ThreadPoolExecutor() as at_once:
        first, second = at_once.map(lambda _: programs(tmp_path / "cache", environment), range(2))
    assert first == second
    assert len((tmp_path / "made").read_text().splitlines()) == 2  # cluster and pod, once each


def test_a_failed_build_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(ClusterError, match="no space left on device"):
        programs(cache, go(tmp_path, FAILS))
    assert list(cache.iterdir()) == []


def test_a_build_that_does_not_end_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(ClusterError, match=r"could not be built: go \w+ did not end in 0\.5 s"):
        programs(cache, go(tmp_path, HANGS), timeout_s=0.5)
    assert list(cache.iterdir()) == []


def test_what_a_killed_build_left_is_never_used_and_is_removed_by_the_next(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    build = "import sys, pathlib, tests.cluster.programs as p; p.programs(pathlib.Path(sys.argv[1]))"
    builder = subprocess.Popen(
        (sys.executable, "-c", build, str(cache)), cwd=ROOT, env={**os.environ, **go(tmp_path, HANGS)}
    )
    wait_until(lambda: bool([*cache.glob("building-*/whole/cluster")]), "the half of a build", 30)
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    built = programs(cache, go(tmp_path, BUILDS))
    assert [path.name for path in cache.iterdir()] == [built.name]
    assert (built / "cluster").read_text() == "built\n"


@pytest.mark.parametrize(("version", "toolchain"), [("go1.19.8", ""), ("go1.26.3", "local")])
def test_a_go_that_is_too_old_and_may_not_fetch_another_is_named_where_none_can_be_fetched(
    tmp_path: Path, version: str, toolchain: str
) -> None:
    told = (
        rf"^go: Go 1\.26\.4 is needed, .* is {version[2:]}; fetching one failed .*install it \(https://go.dev"
    )
    nowhere = {"GOPROXY": f"file://{tmp_path}/nowhere", "XDG_CACHE_HOME": str(tmp_path)}
    with pytest.raises(ClusterError, match=told):
        programs(tmp_path / "cache", {**go(tmp_path, BUILDS, version, toolchain), **nowhere})
    assert list((tmp_path / "tlsy").iterdir()) == []


def test_that_the_disk_is_too_small_is_said_before_a_go_is_looked_for(tmp_path: Path) -> None:
    nowhere = {"GOPROXY": f"file://{tmp_path}/nowhere", "XDG_CACHE_HOME": str(tmp_path)}
    too_old = {**go(tmp_path, BUILDS, "go1.19.8"), **nowhere}
    with pytest.raises(ClusterError, match=r"^the build needs 1073741824 GiB on the disk of"):
        programs(tmp_path / "cache", too_old, needed_bytes=2**60)


def test_another_go_than_the_one_of_the_sum_is_refused(tmp_path: Path) -> None:
    served = tmp_path / "golang.org" / "toolchain" / "@v"
    served.mkdir(parents=True)
    for architecture in ("amd64", "arm64"):
        (served / f"v0.0.1-go1.26.8.linux-{architecture}.zip").write_text("another")
    proxy = {"GOPROXY": f"file://{tmp_path}", "XDG_CACHE_HOME": str(tmp_path)}
    with pytest.raises(ClusterError, match="is not the one of the sum"):
        programs(tmp_path / "cache", {**go(tmp_path, BUILDS, "go1.19.8"), **proxy})


def test_an_older_go_that_may_fetch_the_one_needed_is_enough(tmp_path: Path) -> None:
    assert programs(tmp_path / "cache", go(tmp_path, BUILDS, "go1.21.0", "auto")).is_dir()


def test_the_same_program_gives_the_same_image(tmp_path: Path) -> None:
    program = tmp_path / "pod"
    program.write_text("a program")
    for name in ("a.tar", "b.tar"):
        write_image(tmp_path / name, "tlsy.local/pod:1", program)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


@pytest.mark.parametrize(
    ("machine", "architecture"), [("x86_64", "amd64"), ("aarch64", "arm64"), ("riscv64", "riscv64")]
)
def test_an_image_says_which_machines_it_is_for(tmp_path: Path, machine: str, architecture: str) -> None:
    program = tmp_path / "pod"
    program.write_text("a program")
    write_image(tmp_path / "pod.tar", "tlsy.local/pod:1", program, machine)
    with tarfile.open(tmp_path / "pod.tar") as image:
        config = image.extractfile("config.json")
        assert config is not None
        assert json.load(config)["architecture"] == architecture
