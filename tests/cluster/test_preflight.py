"""A machine that cannot run a cluster is told all that it lacks, before anything is made on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.keeper import claim, free_networks
from tests.cluster.plan import ClusterError
from tests.cluster.preflight import check_machine, check_rights


def test_who_is_not_root_and_has_no_containerd_is_told_both_at_once(tmp_path: Path) -> None:
    with pytest.raises(ClusterError) as refused:
        check_machine(path=str(tmp_path), user=1000, folder=tmp_path)
    problems = str(refused.value)
    assert "a cluster needs root" in problems
    assert "'containerd'" in problems
    assert "apt-get install --no-install-recommends" in problems
    assert "containerd" in problems.rsplit("--no-install-recommends", maxsplit=1)[1]


def test_only_root_looks_into_a_cluster_or_ends_it() -> None:
    with pytest.raises(ClusterError, match=r"a cluster needs root .*: run this with sudo"):
        check_rights(user=1000)


@pytest.mark.parametrize(
    ("folder", "problem"),
    [("/run/clusters", "clusters cover"), (f"/{'long' * 20}", "too long for sockets")],
)
def test_a_home_that_cannot_work_is_refused(folder: str, problem: str) -> None:
    with pytest.raises(ClusterError, match=problem):
        check_machine(folder=Path(folder))


def test_networks_that_are_taken_are_left_out() -> None:
    routes = ["10.89.0.0/24", "10.90.7.1", "192.0.2.0/24"]
    assert next(free_networks(routes)) == 91
    assert list(free_networks(["10.0.0.0/8"])) == []


def test_a_directory_of_something_else_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(ClusterError, match="holds something else"):
        claim(tmp_path)
    assert (tmp_path / "precious").exists()
