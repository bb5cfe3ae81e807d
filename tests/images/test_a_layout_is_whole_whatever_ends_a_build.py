from __future__ import annotations

import io
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from images.context import ROOT, BuildError
from images.layout import Layout

from .saved import saved

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2026, 1, 1, tzinfo=UTC)
#: Of the second image, so that the files that are written of it are the larger the later they are written.
NAME, LABEL = "second" * 200, "x" * 800
#: Bytes that the largest file may have: each refuses another one.
ROOMS = pytest.mark.parametrize(
    "size",
    [
        pytest.param(0, id="oci-layout"),
        pytest.param(60, id="layer"),
        pytest.param(400, id="known layers"),
        pytest.param(900, id="config"),
        pytest.param(2000, id="index"),
    ],
)


def image(folder: Path, name: str, label: str = "") -> Path:
    """One with a layer that no other has."""
    return saved(folder / f"{name}.tar", {"name": name, "more": label}, {name: b""})


@contextmanager
def room(size: int) -> Iterator[None]:
    """The kernel refuses what makes a file larger than this, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def told(folder: Path, name: str) -> str:
    """What its label says that it is; all of it is read too."""
    Layout(folder).archive(name, io.BytesIO())
    return (Layout(folder).labels(name) or {})["name"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A layout with one image."""
    folder = tmp_path / "built" / "oci"
    Layout(folder).add("first", image(tmp_path, "first"), NOW)
    return folder


def check_whole(folder: Path) -> None:
    """What was there is there, the next build goes well, and nothing is left of the one that was ended."""
    assert told(folder, "first") == "first"
    Layout(folder).add("next", image(folder.parents[1], "next"), NOW)
    assert [told(folder, name) for name in ("first", "next")] == ["first", "next"]
    assert {path.name for path in folder.parent.iterdir()} == {"oci", "oci.lock", "oci.layers.json"}
    assert {path.name for path in folder.iterdir()} == {"blobs", "index.json", "oci-layout"}
    assert {len(path.name) for path in (folder / "blobs" / "sha256").iterdir()} == {64}


@ROOMS
def test_a_full_disk_leaves_what_was_there_and_says_what_to_do(folder, tmp_path, size):
    second = image(tmp_path, "second", LABEL)
    with room(size), pytest.raises(BuildError, match=r"/oci cannot be written: .*\n.* Make room on its disk"):
        Layout(folder).add(NAME, second, NOW)
    assert list(folder.parent.glob("*.part")) == []
    check_whole(folder)
    Layout(folder).add(NAME, second, NOW)
    assert told(folder, NAME) == "second"


_KILLED = """
import resource, signal, sys
from pathlib import Path
from datetime import datetime
from images.layout import Layout
layout = Layout(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
layout.add(sys.argv[3], Path(sys.argv[2]), datetime.fromisoformat("2026-01-01T00:00:00+00:00"))
"""


@ROOMS
def test_so_does_one_that_is_killed_as_it_writes(folder, tmp_path, size):
    second = image(tmp_path, "second", LABEL)
    ran = subprocess.run(
        [sys.executable, "-c", _KILLED, folder, second, NAME, str(size)], cwd=ROOT, check=False, timeout=60
    )
    assert ran.returncode == -signal.SIGXFSZ
    check_whole(folder)


def test_two_at_once_lose_nothing_of_each_other(tmp_path):
    names = [f"image-{number}" for number in range(40)]
    archives = {name: image(tmp_path, name) for name in names}

    def add(name: str) -> None:
        Layout(tmp_path / "oci").add(name, archives[name], NOW)

    with ThreadPoolExecutor(8) as builds:
        list(builds.map(add, names))
    assert [told(tmp_path / "oci", name) for name in names] == names


def test_one_that_is_damaged_all_the_same_says_what_to_do(folder, tmp_path):
    for damaged in (folder / "index.json", folder.with_name("oci.layers.json")):
        damaged.write_bytes(b"")
    with pytest.raises(BuildError, match=r"oci/index\.json is damaged: remove it and build all images again"):
        Layout(folder).labels("first")
    (folder / "index.json").unlink()
    Layout(folder).add("first", tmp_path / "first.tar", NOW)
    check_whole(folder)
