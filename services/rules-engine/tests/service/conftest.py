from __future__ import annotations

import pytest

from tlsy.contracts.events import TOPICS
from tlsy.testkit.kafka import embedded_broker
from tlsy.testkit.peers import peers

from .world import TOPIC, World


@pytest.fixture
async def world(installation):
    await installation.platform_tenant()
    async with embedded_broker() as brokers, peers(installation, brokers) as around:
        made = World(installation, brokers, around)
        await made.inspector.ensure_topics({TOPIC: 4, TOPICS["rules-engine"]: 4})
        yield made
        await made.stop()


@pytest.fixture
async def tenant(world):
    """One that the catalogues of replicas know: they are made before."""
    return await world.tenant()


@pytest.fixture
async def other(world):
    return await world.tenant()


@pytest.fixture
async def replica(world, tenant, other):
    return await world.replica()


@pytest.fixture
def stub(world, tenant, replica):
    return world.stub(tenant)
