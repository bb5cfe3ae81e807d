"""Under CI a test that skips itself has failed; elsewhere it says why it was skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from tests.architecture.tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

ITSELF: Final = "import pytest\ndef test_a():\n    pytest.skip('no server')\n"
WHOLE_MODULE: Final = "import pytest\npytest.skip('no server', allow_module_level=True)\n"


def run(folder: Path, sample: str, ci: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_sample.py").write_text(sample)
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "conftest",
            "-ra",
            f"--rootdir={folder}",
            "-c",
            os.devnull,
            folder,
        ],
        cwd=ROOT,
        env={**os.environ, "CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("sample", [ITSELF, WHOLE_MODULE])
def test_a_skip_under_ci_fails_and_says_why(tmp_path: Path, sample: str) -> None:
    ran = run(tmp_path, sample, ci="true")
    assert ran.returncode != 0
    assert "cannot be skipped under CI. Skipped: no server" in ran.stdout


def test_a_skip_elsewhere_is_named_and_does_not_fail(tmp_path: Path) -> None:
    ran = run(tmp_path, ITSELF, ci="")
    assert ran.returncode == 0
    assert "no server" in ran.stdout
