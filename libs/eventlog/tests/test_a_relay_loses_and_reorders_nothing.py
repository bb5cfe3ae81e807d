from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from libs.eventlog.tests.world import CLOCK, event_of, note_of, until
from tlsy.eventlog.errors import LogUnavailable
from tlsy.eventlog.ports import OutboxDatabase
from tlsy.tenancy.context import IsolationMode, Placement
from tlsy.tenancy.database import ClusterAddress, Databases, PoolLimits
from tlsy.tenancy.errors import PlacementUnavailable
from tlsy.testkit.listening import keep_silent, listening


class Flaky:
    """A producer that fails after having written the first half of every other batch."""

    def __init__(self, producer):
        self.producer = producer
        self.calls = 0

    async def publish(self, records, *, timeout_s):
        self.calls += 1
        if self.calls % 2:
            half = len(records) // 2
            positions = await self.producer.publish(records[:half], timeout_s=timeout_s) if half else []
            return [*positions, *([None] * (len(records) - half))]
        return await self.producer.publish(records, timeout_s=timeout_s)


class LosesMarks:
    """Outboxes of which the first `deaths` marking transactions end without a commit."""

    def __init__(self, outboxes, deaths):
        self.outboxes = outboxes
        self.deaths = deaths

    def __getattr__(self, name):
        return getattr(self.outboxes, name)

    @asynccontextmanager
    async def lead(self, placement):
        async with self.outboxes.lead(placement) as outbox:
            marking = Marking(outbox) if outbox else None
            yield marking
            if marking and marking.marked and self.deaths:
                self.deaths -= 1
                raise PlacementUnavailable(placement, "died before the commit")


class Marking:
    def __init__(self, outbox):
        self.outbox = outbox
        self.marked = False

    def __getattr__(self, name):
        return getattr(self.outbox, name)

    async def mark(self, published, log):
        self.marked = bool(published)
        return await self.outbox.mark(published, log)


async def test_rows_wait_for_a_broker_that_is_down(world, tenant, broker):
    await world.relaying()
    await world.publish(tenant, "before")
    await world.published(tenant)
    await broker.stop()
    await world.publish(tenant, "meanwhile")
    await world.publish(tenant, "and more")
    assert await world.unpublished(tenant) == 2
    await broker.start()
    await world.published(tenant)
    assert [note_of(r.value) for r in await world.records()][-2:] == ["meanwhile", "and more"]


async def test_a_relay_starts_before_its_broker(world, tenant, broker):
    await broker.stop()
    await world.relaying()
    await world.publish(tenant, "a")
    await broker.start()
    await world.published(tenant)


async def test_publishing_resumes_soon(world, tenant, broker):
    await world.relaying()
    await world.publish(tenant, "a")
    await world.published(tenant)
    await broker.stop()
    await world.publish(tenant, "b")
    failures = world.metrics.relay_failures

    async def noticed():
        return any(s.value > 2 for m in failures.collect() for s in m.samples if s.name.endswith("_total"))

    await until(noticed)
    await broker.start()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await world.published(tenant)
    assert loop.time() - begun < 5


async def test_order_is_kept_per_key_under_retries(world, tenant):
    flaky = Flaky(world.producer())
    await world.relaying(producer=flaky, batch_rows=7)
    await world.consuming()
    notes = [f"{number:03}" for number in range(40)]
    for start in range(0, 40, 5):
        await world.publish(tenant, *notes[start : start + 5])
    await world.noted(tenant, *notes)
    assert flaky.calls > 2


async def test_a_relay_that_dies_before_marking_publishes_again_and_nothing_counts_twice(world, tenant):
    await world.consuming()
    dying = LosesMarks(world.outboxes(), 2)
    await world.relaying(outboxes=dying)
    await world.publish(tenant, "a", "b")
    await world.published(tenant)
    await world.publish(tenant, "c")
    await world.noted(tenant, "a", "b", "c")
    assert len(await world.records()) > 3


async def test_only_one_relay_leads_an_outbox(world, tenant):
    first, second = world.outboxes(), world.outboxes()
    async with first.lead(tenant.placement) as held:
        assert held is not None
        async with second.lead(tenant.placement) as refused:
            assert refused is None
    async with second.lead(tenant.placement) as taken:
        assert taken is not None


async def test_two_relays_publish_each_row_once(world, tenant):
    await world.relaying()
    await world.relaying()
    for number in range(30):
        await world.publish(tenant, f"{number:02}")
    await world.published(tenant)
    notes = [note_of(record.value) for record in await world.records()]
    assert notes == [f"{number:02}" for number in range(30)]


async def test_a_second_relay_takes_over(world, tenant):
    first = await world.relaying()
    await world.relaying()
    await world.publish(tenant, "a")
    await world.published(tenant)
    await first.stop(0)
    await world.publish(tenant, "b")
    await world.published(tenant)


class WithDeadDatabases:
    """Three databases on a server that accepts connections and never answers, before the living ones."""

    def __init__(self, world):
        self.world = world

    def databases(self):
        dead = [OutboxDatabase(Placement("hole", f"gone_{n}", ""), notifies=False) for n in range(3)]
        return [*dead, *self.world.databases()]


@pytest.fixture
def hole():
    with listening(keep_silent) as port:
        yield port


async def test_dead_databases_do_not_stall_the_others(world, tenant, hole):
    clusters = {
        "local": world.installation.server.address("tlsy_relay"),
        "hole": ClusterAddress(host="127.0.0.1", port=hole, user="tlsy_relay", password=""),
    }
    databases = Databases(clusters, PoolLimits(retry_after_max_s=0.01), CLOCK)
    await world.relaying(
        outboxes=world.outboxes(databases),
        source=WithDeadDatabases(world),
        concurrency=2,
        database_retry_max_s=0.05,
    )
    failures = world.metrics.relay_failures.labels("ingestion", "PLACEMENT_UNAVAILABLE")
    await until(lambda: _at_least(failures, 3))
    taken_s, loop = [], asyncio.get_running_loop()
    for number in range(30):
        begun = loop.time()
        await world.publish(tenant, str(number))
        await until(lambda: _published(world, tenant))
        taken_s.append(loop.time() - begun)
    # The better half: on a busy machine the clock on the wall measures the others.
    assert sorted(taken_s)[15] < 1.0
    await world.stop()
    await databases.close()


async def _at_least(counter, count):
    return counter._value.get() >= count


@pytest.mark.parametrize("mode", IsolationMode)
async def test_a_commit_wakes_the_relay(world, mode):
    tenant = await world.installation.provisioned_tenant(mode)
    await world.relaying(sweep_s=60.0)
    await world.publish(tenant, "first")
    await world.published(tenant)
    await world.publish(tenant, "told at once")
    await until(lambda: _published(world, tenant))


class WithListenersEverywhere:
    """Every database of the installation, all of which notify."""

    def __init__(self, world):
        self.world = world

    def databases(self):
        return [replace(database, notifies=True) for database in self.world.databases()]


async def test_more_databases_that_notify_than_connections_leave_the_relay_its_own(world, tenant, dedicated):
    limits = PoolLimits(total=2, per_database=2, acquire_timeout_s=0.5)
    everywhere = WithListenersEverywhere(world)
    assert len(everywhere.databases()) == limits.total + 1
    outboxes = world.outboxes(world.installation.databases("tlsy_relay", limits))
    await world.relaying(outboxes=outboxes, source=everywhere, concurrency=1)
    await _listening(world, everywhere.databases())
    for turn in range(5):
        await world.publish(tenant, str(turn))
        await world.publish(dedicated, str(turn))
        await until(lambda: _published(world, tenant))
        await until(lambda: _published(world, dedicated))


async def test_a_database_that_proves_to_notify_is_listened_to(world, tenant):
    everywhere = WithListenersEverywhere(world)
    told = [replace(database, notifies=False) for database in everywhere.databases()]
    await world.publish(tenant, "first")
    await world.relaying(source=Told(told), sweep_s=60.0)
    await world.published(tenant)
    told[:] = everywhere.databases()
    await _listening(world, told)
    await world.publish(tenant, "told at once")
    await until(lambda: _published(world, tenant))


class Told:
    def __init__(self, told):
        self.told = told

    def databases(self):
        return self.told


async def _listening(world, databases):
    administrator = await world.installation.connect(None, world.installation.control)
    text = (
        "select count(distinct datname) from pg_stat_activity where datname = any($1) and query ^@ 'LISTEN'"
    )
    names = [database.placement.database for database in databases]
    await until(lambda: _equals(administrator.fetchval(text, names), len(names)))


async def _equals(asked, wanted):
    return await asked == wanted


async def test_a_commit_that_another_replicas_sweep_did_not_see_is_told_as_soon_as_that_ends(
    world, dedicated
):
    relay = await world.relaying(sweep_s=60.0)
    await world.publish(dedicated, "first")
    await world.published(dedicated)

    async def was_woken():
        return any(lane.owes for lane in relay._lanes.values())

    async with world.outboxes().lead(dedicated.placement) as elsewhere:
        assert elsewhere is not None
        await world.publish(dedicated, "told at once")
        await until(was_woken)
    await until(lambda: _published(world, dedicated))


async def _published(world, tenant):
    return await world.unpublished(tenant) == 0


async def test_a_stopping_relay_publishes_what_is_committed(world, tenant):
    relay = await world.relaying(sweep_s=60.0)
    await world.publish(tenant, "a")
    await world.published(tenant)
    await world.publish(tenant, "b")
    await relay.stop(5.0)
    assert await world.unpublished(tenant) == 0


async def test_a_refused_batch_is_no_reason_to_mark(world, tenant):
    class Refusing:
        async def publish(self, records, *, timeout_s):
            raise LogUnavailable("no")

    relay = await world.relaying(producer=Refusing())
    await world.publish(tenant, "a")
    failures = world.metrics.relay_failures.labels("ingestion", "LOG_UNAVAILABLE")
    await until(lambda: _at_least(failures, 1))
    assert await world.unpublished(tenant) == 1
    await relay.stop(1.0)


async def test_the_backlog_is_measured_in_items_and_seconds(world, tenant, broker):
    await broker.stop()
    await world.publish(tenant, "a", "b")
    async with world.outboxes().lead(tenant.placement) as outbox:
        backlog = await outbox.backlog()
    assert backlog.items == 2
    assert backlog.oldest is not None


async def test_batches_are_bounded_in_bytes(world, tenant):
    big = [event_of(tenant, "x" * 1_000) for _ in range(10)]
    await world.write(tenant, *big)
    async with world.outboxes().lead(tenant.placement) as outbox:
        batch = await outbox.unpublished(limit=100, max_bytes=2_500, all_rows=False)
        alone = await outbox.unpublished(limit=100, max_bytes=1, all_rows=False)
    assert [event.id for event in batch] == [event.id for event in big[:3]]
    assert len(alone) == 1
