"""The cluster of `make cluster-up` is not ended under the tests that use it, and CI's tests do not use it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cluster.cluster import stop, used_cluster
from tests.cluster.keeper import KEEPER_FILE, PLAN_FILE, UP_FILE, identity
from tests.cluster.plan import ClusterError, Plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """Of a cluster that is up, in which nothing is."""
    monkeypatch.setenv("TLSY_CLUSTER_HOME", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    state = tmp_path / "up"
    state.mkdir()
    plan = Plan(key=secrets.token_hex(4), state=str(state), programs="", nodes=0, network=0)
    with subprocess.Popen(("sleep", "600")) as process:
        (state / KEEPER_FILE).write_text(json.dumps(identity(process.pid)))
        (state / PLAN_FILE).write_text(plan.text())
        (state / UP_FILE).touch()
        yield process
        process.kill()


def test_who_would_end_a_cluster_under_tests_is_told_whose_they_are(
    keeper: subprocess.Popen[bytes],
) -> None:
    with used_cluster() as cluster:
        assert cluster is not None
        with pytest.raises(ClusterError, match=rf"used by process {os.getpid()} \(.*FORCE=1"):
            stop()
        with used_cluster() as too:
            assert too == cluster
        assert keeper.poll() is None
    assert stop()
    assert not stop()


@pytest.mark.usefixtures("keeper")
def test_force_ends_a_cluster_under_tests() -> None:
    with used_cluster():
        assert stop(force=True)
    with used_cluster() as cluster:
        assert cluster is None


@pytest.mark.usefixtures("keeper")
def test_under_ci_tests_do_not_use_the_cluster_that_others_may_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with used_cluster() as cluster:
        assert cluster is None
        assert stop()
