from __future__ import annotations

import secrets
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import pytest

from images.servers import SERVERS
from tests.cluster.namespace import Namespace
from tests.cluster.plan import ClusterError
from tests.cluster.spine.suite import SuiteOfPods
from tests.cluster.spine.worlds import world_of
from tests.images.settings import SERVICES, installed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from images.layout import Layout
    from tests.cluster.cluster import Cluster
    from tests.e2e.world import World

#: Of what `make images` built.
_TAG: Final = "dev"


@pytest.fixture(scope="package")
def images(cluster: Cluster, built_images: Layout) -> dict[str, str]:
    """Short name to name, on every node."""
    named = {name: f"tlsy/{name}:{_TAG}" for name in (*SERVICES, *SERVERS)}
    for name in named.values():
        try:
            cluster.import_built(built_images, name)
        except LookupError as error:
            pytest.skip(f"{error}: make images")
    return named


@pytest.fixture(scope="package")
def space(cluster: Cluster) -> Iterator[Namespace]:
    name = f"spine-{secrets.token_hex(3)}"
    cluster.kubectl("create", "namespace", name)
    yield Namespace(cluster, name)
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="package")
def suite(space: Namespace, images: Mapping[str, str]) -> Iterator[SuiteOfPods]:
    """All is ready."""
    made = SuiteOfPods(space, images)
    made.start_servers()
    with installed(made.server()) as installation:
        made.start_services(installation)
        yield made


@pytest.fixture
async def world(suite: SuiteOfPods, tmp_path: Path) -> AsyncIterator[World]:
    async with aclosing(world_of(suite, tmp_path)) as made:
        yield made
    # Shown of a test that fails: nothing is left to look at then.
    try:
        told = suite.errors()
    except ClusterError as error:
        told = str(error)
    sys.stdout.write(told)
