"""What has gone wrong with a cluster is told by name, and what is left of one is removed by the next."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cluster.cluster import SHARED, Cluster, shared_cluster, sweep
from tests.cluster.keeper import KEEPER_FILE, PLAN_FILE, UP_FILE, claim, give_back, identity
from tests.cluster.namespace import Namespace
from tests.cluster.plan import ClusterError, Plan

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """The directories of one, with a program in the place of kubectl that never answers."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\nexec sleep 600\n")
    kubectl.chmod(0o755)
    for folder in ("log", "ended"):
        (tmp_path / folder / "node-0").mkdir(parents=True)
    return Cluster(Plan(key="", state=str(tmp_path), programs=str(tmp_path), nodes=1, network=89))


def end(cluster: Cluster, state: Path) -> None:
    """As the first process of a node notes it."""
    (state / "log" / "node-0" / "network-policies.log").write_text("hello\nno queue is left\n")
    (state / "ended" / "node-0" / "network-policies").write_text("-9")
    with pytest.raises(ClusterError):
        cluster.check()


TOLD = r"node-0/network-policies ended with -9(.|\n)*no queue is left"


def test_who_waits_is_told_at_once_which_part_has_ended(cluster: Cluster, tmp_path: Path) -> None:
    cluster.check()
    end(cluster, tmp_path)
    with pytest.raises(ClusterError, match=TOLD):
        Namespace(cluster, "any").soon(lambda: False, "what never happens", timeout_s=600)


def test_kubectl_has_a_deadline_and_then_it_is_told_as_well(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="kubectl get: no answer in"):
        cluster.kubectl("get", timeout_s=0.1)
    end(cluster, tmp_path)
    with pytest.raises(ClusterError, match=TOLD):
        cluster.kubectl("get", timeout_s=0.1)


def test_a_node_is_found_among_processes_that_have_just_ended(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / KEEPER_FILE).write_text(json.dumps(identity(os.getpid())))
    node = (sys.executable, "-c", "input()", "-m", "tests.cluster.node", "0")
    with subprocess.Popen("true") as ended, subprocess.Popen(node, stdin=subprocess.PIPE) as started:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert f"--target={started.pid}" in cluster.entering("node-0")
        with pytest.raises(ClusterError, match="there is no node node-7: node-0"):
            cluster.entering("node-7")
        started.communicate(b"\n")


def test_one_that_is_still_starting_is_not_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TLSY_CLUSTER_HOME", str(tmp_path))
    state = tmp_path / SHARED
    state.mkdir()
    starting = Plan(key="", state=str(state), programs="", nodes=2, network=0)
    for name, text in ((KEEPER_FILE, json.dumps(identity(os.getpid()))), (PLAN_FILE, starting.text())):
        (state / name).write_text(text)
    assert shared_cluster() is None
    (state / UP_FILE).touch()
    assert shared_cluster() == Cluster(starting)


def test_an_empty_directory_of_a_keeper_that_died_at_once_is_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TLSY_CLUSTER_HOME", str(tmp_path))
    for name in ("of-17", "of-18", "somebodys"):
        (tmp_path / name).mkdir()
    lock = os.open(tmp_path / "of-18", os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["of-18", "somebodys"]
    os.close(lock)
    sweep()
    assert [path.name for path in tmp_path.iterdir()] == ["somebodys"]


def test_a_home_is_removed_after_the_last_cluster_unless_it_was_there_before(tmp_path: Path) -> None:
    before, made = tmp_path / "before", tmp_path / "made"
    before.mkdir()
    for home in (before, made):
        locks = {name: claim(home / name) for name in ("of-17", "up")}
        for name, lock in locks.items():
            assert (home / name).is_dir()
            give_back(home / name, lock)
    assert [*before.iterdir()] == []
    assert not made.exists()


def test_two_cannot_have_one_directory(tmp_path: Path) -> None:
    lock = claim(tmp_path / "up")
    (tmp_path / "up" / KEEPER_FILE).touch()
    with pytest.raises(ClusterError, match=r"a cluster is running in .*/up: use it"):
        claim(tmp_path / "up")
    os.close(lock)
    os.close(claim(tmp_path / "up"))
