"""A program that is built from its module is there whole or not at all, and is built once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

TOOL: Final = Path(__file__).parents[2] / ".ci" / "tool"
PROGRAMS: Final = (
    *("bash", "awk", "chmod", "dirname", "env", "head", "mkdir", "mktemp", "mv", "rm", "sha256sum", "sort"),
    *("tail", "timeout", "uname"),
)
#: As a Go that is new enough answers.
GO: Final = '[[ $1 != env ]] || { for name in "${@:2}"; do echo "${name/GOVERSION/go1.26.8}"; done; exit; }; '
BUILDS: Final = f'{GO} echo "$*" >> "$CALLS"; : > "$GOBIN/gitleaks"; chmod +x "$GOBIN/gitleaks"'
FAILS: Final = f'{GO} : > "$GOBIN/half"; exit 1'
OLD: Final = "echo go1.19.8"
#: As a version manager's, where no version is chosen.
SHIM: Final = "echo 'no version is set' >&2; exit 126"
#: Of a time-out that is over at once, for what its arguments match.
OVER: Final = '#!/usr/bin/bash\n[[ $* != {} ]] || exit 124\nexec /usr/bin/timeout "$@"\n'


@pytest.fixture
def ask(tmp_path: Path):
    """Asks for a program, where Go is the script that is given."""
    folder = tmp_path / "path"
    folder.mkdir()
    for program in PROGRAMS:
        (folder / program).symlink_to(f"/usr/bin/{program}")
    (folder / "python3").symlink_to(Path(sys.executable).resolve())

    def run(
        name: str, go: str, script: Path = TOOL, proxy: str = "file:///nowhere"
    ) -> subprocess.CompletedProcess[str]:
        if go:
            (folder / "go").write_text(f"#!/usr/bin/bash\n{go}\n")
            (folder / "go").chmod(0o755)
        environ = {
            **{name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")},
            **{name: os.environ[name] for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ},
            "PATH": str(folder),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "CALLS": str(tmp_path / "calls"),
            "GOPROXY": proxy,
        }
        return subprocess.run(
            ["/usr/bin/bash", script, name],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
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
        ("gitleaks", "", "Go 1.26.4 is needed; fetching one failed"),
        ("gitleaks", OLD, "/path/go is 1.19.8; fetching one failed"),
        ("gitleaks", SHIM, "/path/go is none that answers; fetching one failed"),
        ("gitleaks", FAILS, "the Go here is go1.26.8, is that too old?"),
        ("nothing", BUILDS, ".ci/tools.txt has no nothing"),
    ],
)
def test_what_cannot_be_built_is_said_and_leaves_nothing(ask, tmp_path, name, go, said):
    ran = ask(name, go)
    assert ran.returncode != 0
    assert ran.stdout == ""
    assert said in ran.stderr
    assert [path for path in tmp_path.glob("cache/**/*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("hangs", "said"),
    [
        ("*GOVERSION*", "/path/go is none that answers; fetching one failed"),
        ("*urlretrieve*", "fetching one failed (it took more than 10 minutes)"),
    ],
)
def test_what_hangs_is_given_up(ask, tmp_path, hangs, said):
    timeout = tmp_path / "path" / "timeout"
    timeout.unlink()
    timeout.write_text(OVER.format(hangs))
    timeout.chmod(0o755)
    ran = ask("gitleaks", OLD)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert said in ran.stderr


@pytest.mark.real
def test_go_is_fetched_once_where_there_is_none_that_is_new_enough(ask):
    proxy = os.environ.get("GOPROXY", "https://proxy.golang.org,direct")
    ran = ask("", "", TOOL.parent / "go", proxy)
    assert ran.returncode == 0, ran.stderr
    said = subprocess.run([ran.stdout.strip(), "version"], capture_output=True, text=True, check=True).stdout
    assert said.startswith("go version go1.26.8 ")
    assert [ask("", go, TOOL.parent / "go").stdout for go in (OLD, SHIM)] == [ran.stdout, ran.stdout]
