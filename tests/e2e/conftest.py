from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tlsy.testkit.kafka import apache_kafka, embedded_broker

from .suites import suite_in_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tlsy.testkit.installation import Installation

    from .world import World


@pytest.fixture(params=[embedded_broker, pytest.param(apache_kafka, marks=pytest.mark.real)])
async def brokers(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The embedded broker; under `make test-real` Apache Kafka."""
    async with request.param() as address:
        yield address


@pytest.fixture
async def world(installation: Installation, brokers: str) -> AsyncIterator[World]:
    """The suite, one replica of each service."""
    async with suite_in_process(installation, brokers) as (_, made):
        yield made
