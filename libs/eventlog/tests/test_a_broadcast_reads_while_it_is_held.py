from __future__ import annotations

import asyncio
from functools import partial

import pytest

from libs.eventlog.tests.test_a_broadcast_misses_nothing import Copy
from libs.eventlog.tests.world import TOPIC, event_of, until
from tlsy.eventlog.kafka_readers import KafkaTail


class Readers:
    """Those of one broadcast: how many were made, and which are not closed."""

    def __init__(self):
        self.made = 0
        self.open = set()

    async def closed(self):
        return not self.open

    async def made_twice(self):
        return self.made >= 2


class CountedTail(KafkaTail):
    def __init__(self, readers, *args):
        super().__init__(*args)
        self.readers = readers
        readers.made += 1
        readers.open.add(self)

    async def close(self):
        await super().close()
        self.readers.open.discard(self)


class HeldCopy(Copy):
    def __init__(self, world):
        super().__init__(world)
        self.readers = Readers()

    def tail(self):
        return CountedTail(self.readers, self.world.brokers, [TOPIC], "test")


@pytest.fixture
def copy(world):
    return HeldCopy(world)


@pytest.fixture
async def broadcast(world, copy, fake_clock):
    await world.inspector().ensure_topics({TOPIC: 4})
    world.components.append(made := copy.broadcast(clock=fake_clock, on_demand=True))
    await made.start()
    return made


async def unmeasured(world):
    return not [sample for metric in world.metrics.broadcast_stale_s.collect() for sample in metric.samples]


async def test_the_log_is_read_while_somebody_holds_it_and_no_event_is_missed(
    world, tenant, copy, broadcast, fake_clock
):
    for turn, heard in ((0, ["first"]), (1, ["first", "second"])):
        await world.send(event_of(tenant, "unheard"))
        assert (copy.readers.made, copy.readers.open) == (turn, set())
        await until(partial(unmeasured, world))
        async with asyncio.timeout(60), broadcast.held():
            await world.send(event_of(tenant, heard[-1]))
            await copy.has(*heard)
        fake_clock.advance(2.0)
        await until(copy.readers.closed)


async def test_the_log_is_read_until_the_last_lets_go(world, tenant, copy, broadcast, fake_clock):
    async with asyncio.timeout(60), broadcast.held():
        async with broadcast.held():
            await world.send(event_of(tenant, "both"))
            await copy.has("both")
        for note in ("one", "still"):
            fake_clock.advance(2.0)
            await world.send(event_of(tenant, note))
            await until_last(copy, note)
    async with asyncio.timeout(60), broadcast.held():
        await world.send(event_of(tenant, "at once again"))
        await copy.has("both", "one", "still", "at once again")
    assert copy.readers.made == 1


async def until_last(copy, note):
    async def condition():
        return copy.notes[-1:] == [note]

    await until(condition)


async def test_who_holds_it_without_a_broker_waits_for_one(world, tenant, copy, broker, broadcast):
    await broker.stop()
    begun = asyncio.Event()

    async def hold():
        async with broadcast.held():
            begun.set()
            await world.send(event_of(tenant, "after"))
            await copy.has("after")

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(hold())
        await until(copy.readers.made_twice)
        assert not begun.is_set()
        await broker.start()
        await world.inspector().ensure_topics({TOPIC: 4})
    assert begun.is_set()


async def test_one_that_nobody_holds_stops_at_once(broadcast):
    async with asyncio.timeout(30):
        await broadcast.stop(60)
        await broadcast.wait()
