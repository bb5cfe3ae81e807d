from __future__ import annotations

import asyncio
import struct
from contextlib import suppress

import pytest
from kio.schema.api_versions.v3.request import ApiVersionsRequest

from libs.broker.tests.conftest import RawClient
from tlsy.broker import Broker, BrokerSettings
from tlsy.broker.read_budget import ReadBudget

MIB = 1024 * 1024
PRODUCE = 0


class Reader:
    def __init__(self):
        self.asked = 0

    def read_on(self):
        self.asked += 1


def test_beyond_the_budget_one_at_a_time_reads_on_and_the_others_in_turn():
    budget, (first, second, third) = ReadBudget(MIB), (Reader(), Reader(), Reader())
    budget.add(2 * MIB)
    assert [budget.may_read(reader, MIB) for reader in (first, second, third)] == [True, False, False]
    budget.release(first, 100)
    assert (second.asked, third.asked) == (1, 1)
    assert [budget.may_read(reader, MIB) for reader in (second, third)] == [True, False]
    budget.forget(third, 0)
    budget.forget(second, 2 * MIB)
    assert budget.held_bytes == -100
    assert (first.asked, third.asked) == (0, 1)


def test_small_requests_always_get_through():
    budget = ReadBudget(1)
    budget.add(10)
    budget.may_read(Reader(), MIB)
    assert budget.may_read(Reader(), 1_000)


@pytest.fixture
async def flooded():
    """A broker, and 30 clients that each send most of a large request."""
    settings = BrokerSettings(max_buffered_bytes=8 * MIB, frame_timeout_s=2.0)
    async with Broker(settings) as broker:
        clients = [await RawClient.connect(str(broker.address)) for _ in range(30)]
        for client in clients:
            client.writer.write(struct.pack(">ih", 16 * MIB, PRODUCE) + bytes(4 * MIB))
        yield broker
        for client in clients:
            with suppress(OSError):
                await client.close()


def held(broker):
    return sum(connection._frames.buffered_bytes for connection in broker._connections)


async def test_their_memory_is_bounded_and_others_are_served(flooded):
    other = await RawClient.connect(str(flooded.address))
    most = 0
    async with asyncio.timeout(60):
        while held(flooded) or most < 8 * MIB:
            await other.ask(ApiVersionsRequest(client_software_name="t", client_software_version="1"))
            most = max(most, held(flooded))
    await other.close()
    # The budget, one request that reads on, and what one read takes per connection.
    assert most < (8 + 4) * MIB + 30 * 320 * 1024
