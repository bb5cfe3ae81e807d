from __future__ import annotations

from typing import TYPE_CHECKING

from .checks.replicas import a_replica_of_each_service_dies
from .suites import processes_beside, suite_in_process

if TYPE_CHECKING:
    from tlsy.testkit.installation import Installation


async def test_a_replica_of_each_service_dies_under_load(installation: Installation, brokers: str) -> None:
    async with suite_in_process(installation, brokers) as (suite, world):
        await a_replica_of_each_service_dies(world, await processes_beside(suite))
