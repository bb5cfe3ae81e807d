from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from tlsy.eventlog.ports import Received, TopicPartition
from tlsy.rules_engine.adapters.reader_backlog import FollowedReader
from tlsy.rules_engine.handlers.memory import Memories
from tlsy.rules_engine.handlers.metrics import RulesMetrics
from tlsy.rules_engine.handlers.ownership import Ownership
from tlsy.rules_engine.handlers.run_timers import RunTimers, TimerSettings
from tlsy.runtime.ids import TenantId
from tlsy.tenancy.context import Placement, TenantState
from tlsy.tenancy.errors import DatabaseBusy, PlacementUnavailable, UnknownTenant

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOW_US = int(NOW.timestamp() * 1_000_000)
TENANT = TenantId(UUID(int=7))
PLACE = TopicPartition(topic="t", partition=0)
PLACEMENT = Placement(cluster="c", database="d", schema="s")


class Clock:
    def __init__(self):
        self.at_s = 0.0

    def now(self):
        return NOW + timedelta(seconds=self.at_s)

    def monotonic(self):
        return self.at_s

    async def sleep(self, seconds):
        self.at_s += seconds
        await asyncio.sleep(0)


class Backlog:
    def __init__(self):
        self.until_us = None
        self.waiting = set()
        self.failing: Exception | None = None

    def applied_until_us(self, partition, key):
        assert (partition, key) == (0, TENANT.hex.encode())
        return self.until_us

    async def parked(self, partition):
        assert partition == 0
        if self.failing is not None:
            raise self.failing
        return self.waiting


class Loaded:
    """What `Memories` keeps of a tenant, as far as timers look at it."""

    partition = 0

    def __init__(self, due_us):
        self.due = due_us

    def due_us(self):
        return self.due


class World:
    """The timers of one tenant, in the only partition; what they had evaluated is in `advanced`."""

    def __init__(self):
        self.tenant: Any = SimpleNamespace(
            tenant_id=TENANT, slug="a", state=TenantState.ACTIVE, modules=frozenset({"expert-rules"})
        )
        self.advanced, self.memories, self.backlog = [], Memories(10), Backlog()
        self.failing: Exception | None = None
        self.ownership = Ownership(
            memories=self.memories,
            partition_count=self._one,
            partition_of=lambda tenant_id, count: 0,
            tenants=lambda: iter([self.tenant] if self.tenant else []),
        )
        self.clock: Any = Clock()
        me: Any = self
        catalog: Any = SimpleNamespace(tenant=self._known)
        self.registry = CollectorRegistry()
        self.timers = RunTimers(
            tenancy=me,
            catalog=catalog,
            evaluation=me,
            states=me,
            memories=self.memories,
            ownership=self.ownership,
            fence=me,
            backlog=self.backlog,
            clock=self.clock,
            settings=TimerSettings(),
            metrics=RulesMetrics(self.registry),
        )

    async def _one(self):
        return 1

    def _known(self, tenant_id):
        if self.tenant is None:
            raise UnknownTenant(str(tenant_id))
        return self.tenant

    def followed_since_us(self):
        """As a load would have it now."""
        return self.memories.followed_since_us(TENANT, 0, NOW_US + int(self.clock.at_s * 1_000_000))

    def lag_s(self):
        return self.registry.get_sample_value("tlsy_rules_timers_lag_seconds")

    async def run(self, tenant_id, work, *, write):
        assert tenant_id == TENANT
        return await work(None)

    async def hold(self, tx, epoch):
        pass

    async def exists(self, tx):
        return True

    async def advance(self, tx, slug, partition, *, until_us):
        self.advanced.append(until_us)
        if self.failing is not None:
            raise self.failing

    async def rounds(self, count=1):
        """So many rounds of the loop."""
        stopping = asyncio.Event()
        ticks = iter(range(count))

        async def sleep(seconds):
            del seconds
            if next(ticks, count - 1) == count - 1:
                stopping.set()

        self.clock.sleep = sleep
        await self.timers.run(stopping)


@pytest.fixture
async def world():
    made = World()
    await made.ownership.on_assigned(PLACE, 1)
    return made


async def test_rules_that_changed_just_after_an_assignment_are_put_in_force(world):
    world.memories.put(TENANT, Loaded(None))
    world.timers.wake(TENANT)
    await world.rounds()
    assert len(world.advanced) == 1


async def test_a_tenant_suspended_at_the_assignment_is_visited_when_it_is_back(world):
    world.tenant.state = TenantState.SUSPENDED
    await world.rounds(2)
    assert world.advanced == []
    world.tenant.state = TenantState.ACTIVE
    await world.rounds()
    assert len(world.advanced) == 1


async def test_timers_of_a_tenant_that_is_suspended_are_no_alarm(world):
    world.memories.put(TENANT, Loaded(NOW_US - 5_000_000))
    world.backlog.until_us = 0
    await world.rounds(2)
    assert world.lag_s() == 5
    world.tenant.state = TenantState.SUSPENDED
    await world.rounds()
    assert world.lag_s() == 0


async def test_of_a_tenant_that_is_deleted_nothing_stays_in_memory(world):
    world.memories.put(TENANT, Loaded(NOW_US - 10))
    world.tenant = None
    await world.rounds()
    assert (len(world.memories), world.lag_s()) == (0, 0)


async def test_time_passes_as_far_as_the_log_was_applied(world):
    world.memories.put(TENANT, Loaded(NOW_US - 10))
    await world.rounds()
    assert world.advanced == []
    for until_us in (NOW_US - 11, NOW_US - 9, NOW_US + 9, None):
        world.backlog.until_us = until_us
        await world.rounds()
    assert world.advanced == [NOW_US - 9, NOW_US, NOW_US]


async def test_for_a_tenant_with_parked_records_time_stands_still(world):
    world.memories.put(TENANT, Loaded(NOW_US - 10))
    world.backlog.waiting = {TENANT}
    await world.rounds(3)
    assert world.advanced == []
    world.backlog.waiting = set()
    await world.rounds()
    assert world.advanced == [NOW_US]


async def test_a_tenant_is_followed_from_its_first_load_on(world):
    world.followed_since_us()
    world.clock.at_s = 100
    await world.rounds()
    assert world.followed_since_us() == NOW_US


async def test_in_another_partition_it_is_followed_anew(world):
    world.followed_since_us()
    assert world.memories.followed_since_us(TENANT, 1, NOW_US + 1) == NOW_US + 1


async def test_after_another_assignment_it_is_followed_anew(world):
    world.followed_since_us()
    await world.ownership.on_assigned(PLACE, 2)
    world.clock.at_s = 100
    assert world.followed_since_us() == NOW_US + 100_000_000


@pytest.mark.parametrize(
    ("error", "since_us"),
    [
        (PlacementUnavailable(PLACEMENT, "lost"), NOW_US + 100_000_000),
        (DatabaseBusy(PLACEMENT, "the consumer is at work"), NOW_US),
    ],
)
async def test_after_its_database_was_away_it_is_followed_anew(world, error, since_us):
    world.followed_since_us()
    world.failing = error
    await world.rounds()
    world.clock.at_s = 100
    assert world.followed_since_us() == since_us


async def test_what_falls_due_while_records_are_parked_waits_for_them_and_is_followed_anew(world):
    world.followed_since_us()
    world.memories.put(TENANT, Loaded(NOW_US - 10))
    world.backlog.waiting = {TENANT}
    await world.rounds(3)
    assert (world.advanced, len(world.memories)) == ([], 0)
    world.clock.at_s = 100
    world.backlog.waiting = set()
    await world.rounds()
    assert (len(world.advanced), world.followed_since_us()) == (1, NOW_US + 100_000_000)


async def test_rules_that_changed_are_put_in_force_though_records_are_parked(world):
    world.backlog.waiting = {TENANT}
    world.timers.wake(TENANT)
    await world.rounds()
    assert world.advanced == [None]


async def test_while_nobody_knows_what_is_parked_time_stands_still_and_nobody_is_lost(world):
    world.followed_since_us()
    world.memories.put(TENANT, Loaded(NOW_US - 10))
    world.backlog.failing = OSError("away")
    await world.rounds(3)
    assert (world.advanced, len(world.memories)) == ([], 1)


async def test_what_falls_due_while_the_tenant_is_suspended_is_followed_anew(world):
    world.followed_since_us()
    world.memories.put(TENANT, Loaded(NOW_US - 10))
    world.tenant.state = TenantState.SUSPENDED
    await world.rounds(3)
    world.clock.at_s = 100
    world.tenant.state = TenantState.ACTIVE
    await world.rounds()
    assert (len(world.advanced), world.followed_since_us()) == (1, NOW_US + 100_000_000)


@pytest.mark.parametrize("away", [{"state": TenantState.SUSPENDED}, {"modules": frozenset()}, None])
async def test_who_was_away_is_followed_anew_though_nothing_fell_due_meanwhile(world, away):
    """Suspended, without the module, or deleted: of the last nothing is kept, either."""
    world.followed_since_us()
    world.memories.put(TENANT, Loaded(NOW_US + 200_000_000))
    await world.rounds()
    there = world.tenant
    world.tenant = None if away is None else SimpleNamespace(**(vars(there) | away))
    await world.rounds()
    world.clock.at_s = 100
    world.tenant = there
    assert (len(world.memories), world.followed_since_us()) == (0, NOW_US + 100_000_000)


class Log:
    """A group's member that is given batches to fetch."""

    def __init__(self, *batches):
        self.batches = list(batches)

    async def fetch(self, partition, *, max_records, timeout_s):
        return self.batches.pop(0)

    async def rewind(self, partition):
        pass


def record(key, at_s):
    time = NOW + timedelta(seconds=at_s)
    return Received(topic="t", partition=0, offset=0, time=time, key=key, value=b"", headers=())


async def test_a_flood_of_one_tenant_holds_up_another_s_time_by_no_more_than_its_own_delay():
    batches: Any = Log([record(b"a", 1), record(b"b", 2)], [record(b"a", 5)], [record(b"a", 9)], [])
    log = FollowedReader(batches)
    assert log.applied_until_us(PLACE, b"b") == 0
    seen = []
    for _ in range(4):
        await log.fetch(PLACE, max_records=10, timeout_s=1)
        seen.append([log.applied_until_us(PLACE, key) for key in (b"a", b"b")])
    at = [NOW_US + seconds * 1_000_000 for seconds in range(10)]
    assert seen == [[0, 0], [at[2], at[5]], [at[5], at[9]], [None, None]]


async def test_what_was_fetched_before_a_rewind_is_not_applied():
    batches: Any = Log([record(b"a", 1)], [record(b"a", 9)], [record(b"a", 2)])
    log = FollowedReader(batches)
    await log.fetch(PLACE, max_records=10, timeout_s=1)
    await log.fetch(PLACE, max_records=10, timeout_s=1)
    await log.rewind(PLACE)
    applied = [log.applied_until_us(PLACE, key) for key in (b"a", b"b")]
    await log.fetch(PLACE, max_records=10, timeout_s=1)
    assert [*applied, log.applied_until_us(PLACE, b"a")] == [NOW_US + 1_000_000] * 3
