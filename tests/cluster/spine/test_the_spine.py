"""What the end-to-end tests check of the suite in processes, on pods."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.cluster.spine.worlds import AllPods, PodOfEach, ServerInPod
from tests.e2e.checks.incidents import events_become_incidents
from tests.e2e.checks.replicas import a_replica_of_each_service_dies
from tests.e2e.checks.servers import (
    one_database_is_away_and_the_others_go_on,
    postgres_is_killed_and_back,
    the_broker_is_killed_and_back,
)
from tests.e2e.checks.sigkill import nothing_acknowledged_is_lost_and_nothing_counts_twice
from tests.images.settings import SERVICES

if TYPE_CHECKING:
    from tests.cluster.spine.suite import SuiteOfPods
    from tests.e2e.world import World

pytestmark = pytest.mark.cluster


async def test_events_become_incidents(world: World) -> None:
    await events_become_incidents(world)


async def test_a_pod_of_each_service_dies_under_load(world: World, suite: SuiteOfPods) -> None:
    await a_replica_of_each_service_dies(world, PodOfEach(suite, world))
    # What comes next is given whole services.
    await asyncio.to_thread(suite.ready, *SERVICES)


async def test_postgres_is_killed_and_back(world: World, suite: SuiteOfPods) -> None:
    await postgres_is_killed_and_back(world, ServerInPod(suite, "postgresql"))


@pytest.mark.parametrize("wiped", [False, True], ids=["killed", "wiped"])
async def test_kafka_is_away_and_back(world: World, suite: SuiteOfPods, *, wiped: bool) -> None:
    await the_broker_is_killed_and_back(world, ServerInPod(suite, "kafka", wiped=wiped))


async def test_one_database_is_away_and_the_others_go_on(world: World, suite: SuiteOfPods) -> None:
    await one_database_is_away_and_the_others_go_on(world, suite.server().address())


async def test_nothing_acknowledged_is_lost_and_nothing_counts_twice(
    world: World, suite: SuiteOfPods
) -> None:
    await nothing_acknowledged_is_lost_and_nothing_counts_twice(world, AllPods(suite), kills=1)
