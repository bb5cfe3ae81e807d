"""Two replicas, all of whose connections go through PgBouncer, where no session lasts."""

from __future__ import annotations

import pytest

from libs.eventlog.tests.world import CLOCK
from tlsy.eventlog.ports import OutboxDatabase
from tlsy.tenancy.database import Databases, PoolLimits
from tlsy.tenancy.unit_of_work import Tenancy
from tlsy.testkit.installation import CLUSTER
from tlsy.testkit.pooler import running_pooler

pytestmark = pytest.mark.real

ROLES = ["tlsy_relay", "tlsy_ingestion"]


class NoneNotifies:
    def __init__(self, world):
        self.world = world

    def databases(self):
        return [OutboxDatabase(each.placement, notifies=False) for each in self.world.databases()]


@pytest.fixture
def pooled(tmp_path, postgres_server):
    with running_pooler(postgres_server, tmp_path, ROLES, connections=3) as addresses:
        yield {role: Databases({CLUSTER: addresses[role]}, PoolLimits(), CLOCK) for role in ROLES}


async def test_each_replicas_commits_are_told_without_waiting_for_the_sweep(world, tenant, pooled):
    tenancies, catalog = [], world.installation.catalog
    for _ in range(2):
        relay = await world.relaying(
            outboxes=world.outboxes(pooled["tlsy_relay"]), source=NoneNotifies(world), sweep_s=60.0
        )
        tenancies.append(
            Tenancy(
                package="ingestion",
                databases=pooled["tlsy_ingestion"],
                catalog=catalog,
                control=world.installation.control,
                wake=relay.wake,
            )
        )
    world.tenancies["ingestion"] = tenancies[0]
    await world.publish(tenant, "begun")
    await world.published(tenant)
    for turn in range(20):
        world.tenancies["ingestion"] = tenancies[turn % 2]
        await world.publish(tenant, str(turn))
        await world.published(tenant)
    await world.stop()
    for databases in pooled.values():
        await databases.close()
