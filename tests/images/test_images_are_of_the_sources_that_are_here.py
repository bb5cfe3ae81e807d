"""An image that was built from other sources than these is not tested in their place."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from images.layout import Layout
from images.source import LABEL, StaleError, check_sources, source_digest

from .saved import saved

if TYPE_CHECKING:
    from pathlib import Path


def test_stale_images_are_named_and_what_to_do(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "oci")
    for name, labels in (("fresh", {LABEL: "abc"}), ("stale", {LABEL: "of-before"}), ("unlabelled", {})):
        layout.add(name, saved(tmp_path / "image.tar", labels, {}), datetime.now(UTC))
    check_sources(layout, ["fresh", "never built"], "abc")
    with pytest.raises(StaleError, match=r"^stale, unlabelled were built .*: make images$"):
        check_sources(layout, ["fresh", "stale", "unlabelled"], "abc")


def test_the_digest_is_of_what_images_are_made_of_and_of_nothing_else(tmp_path: Path) -> None:
    source, test = tmp_path / "libs" / "a" / "src" / "a.py", tmp_path / "libs" / "a" / "tests" / "test_a.py"
    for file in (source, test):
        file.parent.mkdir(parents=True)
        file.write_text("before")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    before = source_digest(tmp_path)
    test.write_text("after")
    assert source_digest(tmp_path) == before
    source.write_text("after")
    assert source_digest(tmp_path) != before
