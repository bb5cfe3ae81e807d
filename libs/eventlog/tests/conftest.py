from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def service_migrations():
    from ledger import LEDGER, PUBLISHER

    return (PUBLISHER, LEDGER)


@pytest.fixture
async def broker():
    from world import BrokerControl

    control = BrokerControl()
    await control.start()
    yield control
    await control.stop()


@pytest.fixture
async def world(installation, broker):
    from world import World

    made = World(installation=installation, servers=broker.address)
    yield made
    await made.stop()


@pytest.fixture
async def tenant(installation):
    return await installation.provisioned_tenant()


@pytest.fixture
async def dedicated(installation):
    from tlsy.tenancy.context import IsolationMode

    return await installation.provisioned_tenant(IsolationMode.DEDICATED)
