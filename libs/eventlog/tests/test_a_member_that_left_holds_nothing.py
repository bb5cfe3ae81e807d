from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from functools import partial

import asyncpg

from libs.eventlog.tests.world import CLOCK, TOPIC, event_of, until
from tlsy.eventlog.errors import LogUnavailable
from tlsy.eventlog.ports import TopicPartition

PARTITION = TopicPartition(topic=TOPIC, partition=0)


class Members:
    """Readers of one group; the first one's broker fails."""

    def __init__(self, kind):
        self.kind = kind
        self.made = []
        self.read_by = []

    def reader(self):
        self.made.append(member := self.kind(self, len(self.made)))
        return member


class Member:
    def __init__(self, group, number):
        self.group = group
        self.number = number

    async def start(self, on_assigned, on_revoked):
        self.on_assigned = on_assigned
        await on_assigned([PARTITION])

    async def fetch(self, partition, *, max_records, timeout_s):
        self.group.read_by.append(self.number)
        await CLOCK.sleep(0.01)
        if self.number == 0:
            raise LogUnavailable("broken")
        return []

    async def starts(self, topic):
        return {}

    async def committed(self, partition):
        return None

    async def lag(self):
        return {}

    async def stop(self):
        pass


class JoinsWhileLeaving(Member):
    """As aiokafka does: a join that is under way ends during stop()."""

    async def stop(self):
        await self.on_assigned([PARTITION])


async def test_what_is_dealt_to_a_member_that_leaves_is_read_by_the_next(world):
    members = Members(JoinsWhileLeaving)
    consumer = await world.consuming(reader=members.reader)
    await until(lambda: _read_by(members, 1))
    assert list(consumer._assigned) == [PARTITION]


async def _read_by(members, number):
    return number in members.read_by


class State:
    def __init__(self):
        self.log = []

    async def on_assigned(self, partition, epoch):
        self.log.append("assigned")

    async def on_revoked(self, partition):
        self.log.append("revoked")


class HangsInFetch(Member):
    async def fetch(self, partition, *, max_records, timeout_s):
        self.group.read_by.append(self.number)
        await asyncio.Event().wait()


async def test_a_stop_that_is_cut_short_revokes_and_ends_what_it_interrupts(world):
    members, state = Members(HangsInFetch), State()
    consumer = await world.consuming(reader=members.reader, ownership=state, revoke_timeout_s=600)
    await until(lambda: _read_by(members, 0))
    working = consumer._assigned[PARTITION].task
    await consumer.stop(0.1)
    assert working.done()
    assert state.log == ["assigned", "revoked"]
    assert not consumer._assigned


class LosesACancellation(Member):
    """As `asyncio.wait_for` does where it comes together with an answer."""

    async def fetch(self, partition, *, max_records, timeout_s):
        self.group.read_by.append(self.number)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()


async def test_a_stop_ends_also_what_lost_its_cancellation(world):
    members = Members(LosesACancellation)
    consumer = await world.consuming(reader=members.reader, revoke_timeout_s=600)
    await until(lambda: _read_by(members, 0))
    async with asyncio.timeout(60):
        await consumer.stop(0.1)
    assert not consumer._assigned


class HangsEverywhere(HangsInFetch):
    async def lag(self):
        self.group.read_by.append("lag")
        await asyncio.Event().wait()


async def test_a_stop_that_found_no_end_in_its_grace_waits_for_nobody(world):
    members = Members(HangsEverywhere)
    consumer = await world.consuming(reader=members.reader, revoke_timeout_s=600)
    for place in (0, "lag"):
        await until(partial(_read_by, members, place))
    async with asyncio.timeout(60):
        await consumer.stop(0.1)
    assert not consumer._assigned


class BusyControl:
    """Transactions whose control database cancels statements for a while."""

    def __init__(self, real):
        self.real = real
        self.refused = 0
        self.busy = False

    def __getattr__(self, name):
        return getattr(self.real, name)

    @asynccontextmanager
    async def control(self, scope, *, write):
        if self.busy:
            self.refused += 1
            raise asyncpg.QueryCanceledError("canceling statement due to statement timeout")
        async with self.real.control(scope, write=write) as tx:
            yield tx


async def test_a_control_database_that_is_too_busy_ends_no_consumer(world, tenant):
    busy = BusyControl(world.installation.tenancy("rules_engine"))
    busy.busy = True
    consumer = await world.consuming(transactions=busy)
    await until(lambda: _refused(busy, 1))
    busy.busy = False
    await world.send(event_of(tenant, "a"))
    await world.noted(tenant, "a")
    busy.busy = True
    consumer._broken.set()
    await until(lambda: _refused(busy, 3))
    busy.busy = False
    await world.send(event_of(tenant, "b"))
    await world.noted(tenant, "a", "b")


async def _refused(busy, at_least):
    return busy.refused >= at_least
