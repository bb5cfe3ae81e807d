"""Who may end the cluster of `make cluster-up`, which tests use it, and how it gets what was built."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from images.layout import Layout
from images.source import LABEL, source_digest
from tests.cluster.__main__ import load
from tests.cluster.cluster import stop, used_cluster
from tests.cluster.images import write_image
from tests.cluster.keeper import KEEPER_FILE, PLAN_FILE, UP_FILE, identity
from tests.cluster.plan import ClusterError, Plan
from tests.images.saved import saved

if TYPE_CHECKING:
    from collections.abc import Iterator


#: A `ctr` that writes down which node's it is, and which names the file has.
CTR: Final = """#!/bin/sh
node=${1%/containerd.sock}
shift $(($# - 1))
echo "${node##*/} $(tar -xOf "$1" manifest.json | grep -o '"RepoTags":[^]]*]')" >> "${0%/*}/imported"
"""


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """Of a cluster that is up, in which nothing is."""
    monkeypatch.setenv("TLSY_CLUSTER_HOME", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    state = tmp_path / "up"
    state.mkdir()
    plan = Plan(key=secrets.token_hex(4), state=str(state), programs="", nodes=1, network=0)
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


@pytest.fixture
def ctr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ctr").write_text(CTR)
    (tmp_path / "ctr").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.usefixtures("keeper", "ctr")
def test_what_was_built_is_on_every_node_by_its_name(tmp_path: Path) -> None:
    write_image(tmp_path / "image.tar", "any", Path(__file__))
    layout = Layout(tmp_path / "oci")
    layout.add("tlsy/x:dev", tmp_path / "image.tar", datetime(2026, 1, 1, tzinfo=UTC))
    with used_cluster() as cluster:
        assert cluster is not None
        cluster.import_built(layout, "tlsy/x:dev")
        with pytest.raises(LookupError, match="has no image tlsy/y:dev: tlsy/x:dev"):
            cluster.import_built(layout, "tlsy/y:dev")
    assert (tmp_path / "imported").read_text() == 'node-0 "RepoTags":["tlsy/x:dev"]\n'


@pytest.mark.usefixtures("keeper", "ctr")
def test_what_was_built_of_other_sources_is_not_given_to_a_cluster(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "oci")
    for name, source in (("tlsy/fresh:dev", source_digest()), ("tlsy/stale:dev", "before")):
        layout.add(name, saved(tmp_path / "image.tar", {LABEL: source}, {}), datetime(2026, 1, 1, tzinfo=UTC))
    with used_cluster() as cluster:
        assert cluster is not None
        with pytest.raises(ClusterError, match=r"^tlsy/stale:dev were built from other .*: make images$"):
            list(load(cluster, layout, ["fresh", "stale"]))
        assert not (tmp_path / "imported").exists()
        assert list(load(cluster, layout, ["fresh"])) == ["tlsy/fresh:dev"]
    assert (tmp_path / "imported").read_text() == 'node-0 "RepoTags":["tlsy/fresh:dev"]\n'
