"""`make bench-cluster` fails when a figure is missed, and at once where no cluster can run."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cluster.__main__ import missed
from tests.cluster.plan import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("cold_build_s", "start_s", "worse"),
    [
        (720.0, 25.0, []),
        (720.1, 25.1, ["cold_build_s", "start_s"]),
        # Nothing was built: that is not measured, and no reason to fail.
        (None, 12.0, []),
    ],
)
def test_figures_that_are_missed_are_named(
    cold_build_s: float | None, start_s: float, worse: list[str]
) -> None:
    assert missed({"cold_build_s": cold_build_s, "start_s": start_s}) == worse


@pytest.mark.parametrize("cold", [(), ("--cold",)], ids=["warm", "cold"])
def test_a_machine_that_cannot_run_one_is_told_before_anything_is_built(
    cold: tuple[str, ...], tmp_path: Path
) -> None:
    nothing = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    bench = subprocess.run(
        (sys.executable, "-m", "tests.cluster", "bench", *cold),
        cwd=ROOT,
        env={**os.environ, **nothing},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert bench.stderr.startswith("a cluster cannot run here:\n"), bench.stderr
    assert bench.returncode == 1
    assert not (tmp_path / "cache").exists()
