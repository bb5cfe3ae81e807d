from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from images.context import ROOT, BuildError, build_wheels
from images.layout import Layout, rewrite
from images.servers import SERVERS


def layer(*entries: tuple[str, bytes], **changes) -> io.BytesIO:
    """A layer with these files as a builder would write it."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            for attribute, value in changes.items():
                setattr(entry, attribute, value)
            archive.addfile(entry, io.BytesIO(content))
    written.seek(0)
    return written


def rewritten(content: io.BytesIO) -> bytes:
    target = io.BytesIO()
    rewrite(content, target)
    return target.getvalue()


A, B = ("app/a", b"1"), ("app/b", b"22")


def test_when_and_in_which_order_files_were_written_makes_no_difference():
    assert rewritten(layer(A, B, mtime=1)) == rewritten(layer(B, A, mtime=2, uname="somebody"))


@pytest.mark.parametrize("changed", [{"mode": 0o755}, {"uid": 7}])
def test_what_a_container_sees_does(changed):
    assert rewritten(layer(A)) != rewritten(layer(A, **changed))
    assert rewritten(layer(A)) != rewritten(layer(("app/a", b"2")))


def test_a_hard_link_comes_after_what_it_links_to():
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("z"), io.BytesIO())
        link = tarfile.TarInfo("a")
        link.type, link.linkname = tarfile.LNKTYPE, "z"
        archive.addfile(link)
    written.seek(0)
    with tarfile.open(fileobj=io.BytesIO(rewritten(written))) as archive:
        assert [(entry.name, entry.linkname) for entry in archive] == [("z", ""), ("a", "z")]


_BUILD = """
import sys
from pathlib import Path
from images.build import build
from images.servers import SERVERS
output, again, first, *others = sys.argv[1:]
build([first, *SERVERS], Path(output), tag="again", cache=False, load=False)
build(others, Path(output), tag="again", again=again, load=False)
"""


def copy_of_the_tree(target: Path) -> None:
    """The same commit and the same changes, with other times, at another place."""
    subprocess.run(["git", "clone", "--quiet", ROOT, target], check=True, timeout=120)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    for name in names.strip("\0").split("\0"):
        if not (ROOT / name).exists():
            (target / name).unlink()
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target / name)
        os.utime(target / name, (1, 1))


@pytest.mark.docker
def test_two_builds_have_one_digest(engine, built, tmp_path):
    """Elsewhere, later, with another mask; what all services share is built again once, the rest for each."""
    copy_of_the_tree(tmp_path / "tree")
    services = [name for name in built.images if name not in SERVERS]
    subprocess.run(
        [sys.executable, "-c", _BUILD, tmp_path, secrets.token_hex(4), *services],
        cwd=tmp_path / "tree",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "tree" / "libs" / "testkit" / "src")},
        umask=0o077,
        check=True,
        timeout=1800,
    )
    index = json.loads((tmp_path / "oci" / "index.json").read_text())
    again = {each["annotations"]["io.containerd.image.name"]: each["digest"] for each in index["manifests"]}
    assert again == {f"tlsy/{name}:again": image.digest for name, image in built.images.items()}
    assert {path.name for path in tmp_path.glob("*.cdx.json")} == {
        f"{name}.cdx.json" for name in built.images
    }


def test_our_wheels_are_made_by_the_builder_of_the_lock_file_and_no_other(tmp_path, monkeypatch):
    """Here the index has another one of the same version."""
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    (version,) = (each["version"] for each in packages if each["name"] == "hatchling")
    index, name = tmp_path / "index" / "hatchling", f"hatchling-{version}"
    index.mkdir(parents=True)
    with zipfile.ZipFile(index / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("hatchling/build.py", "raise SystemExit('a stranger was run')")
        wheel.writestr(
            f"{name}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: hatchling\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{name}.dist-info/RECORD", "")
    (index / "index.html").write_text(f"<a href='{name}-py3-none-any.whl'>{name}-py3-none-any.whl</a>")
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.parent.as_uri())
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(BuildError, match="Hash mismatch for `hatchling"):
        build_wheels([Path("libs/rpc")], tmp_path / "wheels")


def test_without_an_engine_it_says_so(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "images", "--folder", tmp_path],
        cwd=ROOT,
        env={**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/nobody"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("images: no Docker engine answers: start one")
    assert list(tmp_path.iterdir()) == []


def test_without_maven_it_says_what_to_install(tmp_path, monkeypatch):
    for name in ("PATH", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    with pytest.raises(BuildError, match="Apache Kafka's jars: 'mvn' is not on the PATH: install"):
        SERVERS["kafka"].prepare(tmp_path / "kafka")


def test_an_unknown_image_is_named_beside_those_that_there_are():
    ran = subprocess.run(
        [sys.executable, "-m", "images", "identiti"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 2
    assert "no image is named identiti: agent, identity, " in ran.stderr


def test_an_archive_of_an_image_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(LookupError, match="has no image tlsy/x:1: none at all"):
        Layout(tmp_path).archive("tlsy/x:1", io.BytesIO())
