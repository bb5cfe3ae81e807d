"""The notes of a release are the changelog's section of its version, or there is no release."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

CHANGELOG: Final = Path(__file__).parents[2] / ".ci" / "changelog"
TEXT: Final = """\
# Changelog

## [1.1.0] - 2026-11-26

### Added
- Something new.

## [1.0.0] - 2026-01-01

### Added
- Something old.
"""


def notes(root: Path, version: str, text: str) -> subprocess.CompletedProcess[str]:
    (root / "CHANGELOG.md").write_text(text)
    (root / "pyproject.toml").write_text('[project]\nversion = "1.1.0"\n')
    return subprocess.run(
        [CHANGELOG, version],
        env={**os.environ, "ROOT": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )


def test_the_section_of_the_version_and_nothing_else(tmp_path):
    ran = notes(tmp_path, "1.1.0", TEXT)
    assert (ran.returncode, ran.stdout) == (0, "### Added\n- Something new.\n")


@pytest.mark.parametrize(
    ("version", "text", "why"),
    [
        ("1.0.0", TEXT, "pyproject.toml has another version than 1.0.0"),
        ("1.1.0", TEXT.replace("1.1.0", "1.2.0"), "no section [1.1.0]"),
        ("1.1.0", TEXT.replace("2026-11-26", "unreleased"), "needs the date of the release"),
        ("1.1.0", TEXT.replace("### Added\n- Something new.\n", ""), "[1.1.0] says nothing"),
    ],
)
def test_a_release_without_notes_is_refused(tmp_path, version, text, why):
    ran = notes(tmp_path, version, text)
    assert ran.returncode != 0
    assert ran.stdout == ""
    assert why in ran.stderr
