"""PostgreSQL, the broker and one tenant's database are taken away under load, and given back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tlsy.tenancy import migrations
from tlsy.testkit.installation import Templates

from .checks.servers import (
    one_database_is_away_and_the_others_go_on,
    postgres_is_killed_and_back,
    the_broker_is_killed_and_back,
)
from .servers import killable_postgres, wipeable_broker
from .suites import suite_in_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tlsy.testkit.installation import Installation

    from .servers import KillablePostgres
    from .world import World


@pytest.fixture(scope="module")
def postgres() -> Iterator[KillablePostgres]:
    with killable_postgres() as running:
        yield running


@pytest.fixture(scope="module")
def templates(postgres: KillablePostgres) -> Templates:
    made = Templates(postgres.server, migrations.installed())
    asyncio.run(made.build())
    return made


@pytest.fixture
async def installation(templates: Templates) -> AsyncIterator[Installation]:
    async with templates.installation() as fresh:
        yield fresh


async def test_postgres_is_killed_and_back(world: World, postgres: KillablePostgres) -> None:
    await postgres_is_killed_and_back(world, postgres)


async def test_the_broker_is_wiped_and_back(installation: Installation) -> None:
    async with wipeable_broker() as broker, suite_in_process(installation, broker.address) as (_, world):
        await the_broker_is_killed_and_back(world, broker)


async def test_one_database_is_away_and_the_others_go_on(world: World, installation: Installation) -> None:
    await one_database_is_away_and_the_others_go_on(world, installation.server.address())
