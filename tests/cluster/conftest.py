"""Fixtures of tests in a cluster: the cluster, and a namespace of the test's own."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Final

import pytest

from images.build import names
from images.context import ROOT
from images.layout import Layout
from images.source import check_sources, source_digest
from tests.cluster.cluster import Cluster, running_cluster, used_cluster
from tests.cluster.namespace import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST_NAME: Final = 50


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster of `make cluster-up`, if it is up; else, and under CI, one that ends with the tests."""
    with used_cluster() as shared:
        if shared is not None:
            yield shared
            return
    with running_cluster() as own:
        yield own


@pytest.fixture(scope="session")
def built_images() -> Layout:
    """What `make images` built, if it is of these sources."""
    layout = Layout(ROOT / "build" / "images" / "oci")
    check_sources(layout, [f"tlsy/{name}:dev" for name in names()], source_digest())
    return layout


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A namespace that is removed, with all that is in it, at the end."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    name = f"{words[:_LONGEST_NAME].strip('-')}-{secrets.token_hex(2)}"
    cluster.kubectl("create", "namespace", name)
    own = Namespace(cluster, name)
    try:
        # Pods are refused until its controller has made it.
        own.wait("wait", "serviceaccount/default", "--for=create")
        yield own
        # What went wrong in the test may be this.
        cluster.check()
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")
