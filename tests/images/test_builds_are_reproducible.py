from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile

import pytest

from images.build import build
from images.context import ROOT
from images.layout import Layout, rewrite


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


@pytest.mark.docker
def test_two_builds_have_one_digest(engine, built, tmp_path):
    again = build(["identity"], tmp_path, tag="again", cache=False, load=False)
    assert again.images["identity"].digest == built.images["identity"].digest
    assert (tmp_path / "identity.cdx.json").exists()


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
