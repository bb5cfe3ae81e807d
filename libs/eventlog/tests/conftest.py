from __future__ import annotations

import pytest

from libs.eventlog.tests.ledger import LEDGER, PUBLISHER
from libs.eventlog.tests.world import BrokerControl, World
from tlsy.tenancy.context import IsolationMode
from tlsy.testkit.plugin import built_templates


@pytest.fixture(scope="session")
def service_migrations():
    return (PUBLISHER, LEDGER)


@pytest.fixture(scope="session")
def database_templates(postgres_server, service_migrations):
    yield from built_templates(postgres_server, service_migrations)


@pytest.fixture
async def broker():
    control = BrokerControl()
    await control.start()
    yield control
    await control.stop()


@pytest.fixture
async def world(installation, broker):
    made = World(installation=installation, servers=broker.address)
    yield made
    await made.stop()


@pytest.fixture
async def tenant(installation):
    return await installation.provisioned_tenant()


@pytest.fixture
async def dedicated(installation):
    return await installation.provisioned_tenant(IsolationMode.DEDICATED)
