"""A program that is built from its module is there whole or not at all, and is built once."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

TOOL: Final = Path(__file__).parents[2] / ".ci" / "tool"
BUILDS: Final = 'echo "$*" >> "$CALLS"; : > "$GOBIN/gitleaks"; chmod +x "$GOBIN/gitleaks"'
FAILS: Final = 'case $1 in env) echo go1.19 ;; *) : > "$GOBIN/half"; exit 1 ;; esac'


@pytest.fixture
def ask(tmp_path: Path):
    """Asks for a program, where Go is the script that is given."""

    def run(name: str, go: str) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / "path"
        folder.mkdir(exist_ok=True)
        for program in ("bash", "awk", "dirname", "mkdir", "mktemp", "mv", "rm", "chmod"):
            if not (folder / program).exists():
                (folder / program).symlink_to(f"/usr/bin/{program}")
        if go:
            (folder / "go").write_text(f"#!/usr/bin/bash\n{go}\n")
            (folder / "go").chmod(0o755)
        environ = {
            "PATH": str(folder),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "CALLS": str(tmp_path / "calls"),
        }
        return subprocess.run(
            ["/usr/bin/bash", TOOL, name],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )

    return run


def test_the_second_time_it_is_there(ask, tmp_path):
    first, second = ask("gitleaks", BUILDS), ask("gitleaks", BUILDS)
    assert first.stdout == second.stdout
    assert os.access(first.stdout.strip(), os.X_OK)
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "go", "said"),
    [
        ("gitleaks", "", "'go' is not on the PATH"),
        ("gitleaks", FAILS, "the Go here is go1.19, is that too old?"),
        ("nothing", BUILDS, ".ci/tools.txt has no nothing"),
    ],
)
def test_what_cannot_be_built_is_said_and_leaves_nothing(ask, tmp_path, name, go, said):
    ran = ask(name, go)
    assert ran.returncode != 0
    assert ran.stdout == ""
    assert said in ran.stderr
    assert [path for path in tmp_path.glob("cache/**/*") if path.is_file()] == []
