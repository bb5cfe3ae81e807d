"""The images, built once per run into build/images, and the suite on them: each service a container."""

from __future__ import annotations

from typing import TYPE_CHECKING

import docker
import pytest
from docker.errors import DockerException

from images.build import Built, build, names
from images.context import ROOT
from images.layout import Layout

from .containers import running_containers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .containers import Containers

TAG = "dev"


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        pytest.skip(f"no Docker engine answers ({error}): .ci/with-docker make test-images")
    yield client
    client.close()


@pytest.fixture(scope="session")
def folder() -> Path:
    return ROOT / "build" / "images"


@pytest.fixture(scope="session")
def layout(folder: Path) -> Layout:
    return Layout(folder / "oci")


@pytest.fixture(scope="session")
def built(engine: docker.DockerClient, folder: Path) -> Built:
    return build(names(), folder, tag=TAG)


@pytest.fixture(scope="session")
def containers(engine: docker.DockerClient, built: Built) -> Iterator[Containers]:
    with running_containers(engine, {name: image.name for name, image in built.images.items()}) as running:
        yield running
