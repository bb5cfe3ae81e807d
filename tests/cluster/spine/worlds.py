"""What the end-to-end checks are given of the suite as pods."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from examples.demo.processes import Running
from tests.cluster.spine.suite import KAFKA_PORT, REPLICAS, SuiteOfPods
from tests.e2e.world import Databases, World
from tests.images.settings import PORT, SERVICES
from tlsy.tenancy.cluster import MIGRATOR

if TYPE_CHECKING:
    from pathlib import Path


def world_of(suite: SuiteOfPods, folder: Path) -> World:
    """The suite as clients see it: of each service whichever replica is ready."""
    key = folder / "platform.key"
    key.write_text(suite.platform_key)
    running = Running(
        services={service: f"{suite.address(f'{service}-ready')}:{PORT}" for service in SERVICES},
        brokers=(f"{suite.address('kafka')}:{KAFKA_PORT}",),
        postgres=suite.server().host,
        api_key_file=key,
    )
    control, common = suite.installation.control.database, suite.installation.common.database
    databases = Databases(suite.server().address(MIGRATOR), control, common)
    return World(running, databases, folder / "kept.json", suffix=f"-{secrets.token_hex(2)}")


class PodOfEach:
    """One of each service's."""

    def __init__(self, suite: SuiteOfPods, world: World) -> None:
        self._suite = suite
        self._pods = {service: suite.of(service)[0] for service in SERVICES}
        addresses = {name: f"{pod['status']['podIP']}:{PORT}" for name, pod in self._pods.items()}
        self.running = replace(world.running, services=addresses)

    async def kill(self) -> None:
        """They end at once, and others take their places."""
        await asyncio.to_thread(self._suite.kill, list(self._pods.values()))


@dataclass(frozen=True, slots=True)
class ServerInPod:
    """PostgreSQL or Kafka; wiped, it comes back without what it held."""

    suite: SuiteOfPods
    app: str
    wiped: bool = False

    async def kill(self) -> None:
        """It ends at once, and stays away."""
        await asyncio.to_thread(self.suite.take_away, self.app, wiped=self.wiped)

    async def start(self) -> None:
        """It is back."""
        await asyncio.to_thread(self.suite.give_back, self.app)


@dataclass(frozen=True, slots=True)
class AllPods:
    """Both servers and each replica."""

    suite: SuiteOfPods

    async def kill(self) -> None:
        """All at once."""
        await asyncio.to_thread(lambda: self.suite.kill(self.suite.of(*REPLICAS)))

    async def start(self) -> None:
        """Kubernetes does it."""

    async def back(self, _: World) -> None:
        """It listens where it did."""
        await asyncio.to_thread(self.suite.ready, *REPLICAS)
