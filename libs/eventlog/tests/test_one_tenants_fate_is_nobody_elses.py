"""One tenant's fate is nobody else's: deleted ones, and ones that send more than they may."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from libs.eventlog.tests.test_a_consumer_applies_each_event_once import dead_letters
from libs.eventlog.tests.test_a_tenant_whose_database_is_down_waits_alone import parked, take_down
from libs.eventlog.tests.world import GROUP, event_of, note_down, until
from tlsy.contracts.events import EVENTS_ACCEPTED
from tlsy.eventlog.applier import RetryPolicy
from tlsy.eventlog.delivery import Batch, Each
from tlsy.eventlog.errors import TenantOverRate, TenantPaused
from tlsy.eventlog.kafka import partition_of
from tlsy.eventlog.parking import ParkingLimits
from tlsy.eventlog.partition import PartitionSettings
from tlsy.eventlog.statements import statements
from tlsy.runtime.clock import SystemClock
from tlsy.runtime.ids import Uuid7
from tlsy.tenancy.database import PoolLimits
from tlsy.tenancy.errors import CatalogUnavailable

if TYPE_CHECKING:
    from tlsy.tenancy.catalog import TenantEntry


@pytest.fixture
async def neighbours(installation):
    """Two tenants of one partition."""
    seen: dict[int, TenantEntry] = {}
    while True:
        tenant = await installation.provisioned_tenant()
        partition = partition_of(tenant.tenant_id.hex.encode(), 4)
        if partition in seen:
            return seen[partition], tenant
        seen[partition] = tenant


async def note_all_down(deliveries, tx):
    for delivery in deliveries:
        await note_down(delivery, tx)


async def test_what_is_parked_for_a_deleted_tenant_is_forgotten(world, installation, dedicated):
    consumer = await world.consuming()
    await take_down(world, dedicated)
    await world.send(*(event_of(dedicated, str(n)) for n in range(30)))
    await parked(world, 30)
    installation.catalog.forget(dedicated.tenant_id)
    await parked(world, 0)
    assert not consumer.stopped_partitions()
    assert world.metrics.skipped.labels(GROUP)._value.get() == 30


async def test_what_is_parked_for_a_tenant_that_is_deleted_while_it_is_looked_up_is_forgotten(
    world, installation, dedicated
):
    late = LateLook(installation.tenancy("rules_engine"), finds=True)
    await world.consuming(transactions=late)
    await take_down(world, dedicated)
    await world.send(event_of(dedicated, "parked"))
    await asyncio.wait_for(late.waits.wait(), 60)
    installation.catalog.forget(dedicated.tenant_id)
    late.go.set()
    await parked(world, 0)
    assert await dead_letters(world, 0) == []
    assert world.metrics.skipped.labels(GROUP)._value.get() == 1


async def test_what_is_parked_is_kept_while_nobody_says_whether_its_tenant_was_deleted(
    world, installation, dedicated
):
    # A try that is under way when the tenant is forgotten goes on until somebody says what became of it.
    patient = RetryPolicy(attempts=10_000, first_wait_s=0.01, unknown_tenant_s=20)
    consumer = await world.consuming(retry=patient)
    await take_down(world, dedicated)
    await world.send(event_of(dedicated, "kept"))
    await parked(world, 1)
    catalog = installation.catalog
    catalog.away = True
    catalog.forget(dedicated.tenant_id)
    await until(lambda: _equal(catalog.refreshed.count(dedicated.tenant_id) >= 2, True))
    await parked(world, 1)
    assert not consumer.stopped_partitions()
    catalog.away = False
    await parked(world, 0)


async def test_a_record_of_an_unknown_tenant_stops_nobody_while_the_owner_is_away(
    world, installation, neighbours
):
    unknown, other = neighbours
    installation.catalog.forget(unknown.tenant_id)
    installation.catalog.away = True
    await world.send(event_of(unknown, "x"), event_of(other, "after"))
    consumer = await world.consuming(retry=RetryPolicy(attempts=2, first_wait_s=0.01))
    await world.noted(other, "after")
    await dead_letters(world, 1)
    assert not consumer.stopped_partitions()


async def test_records_of_a_deleted_tenant_stop_nobody(world, installation, neighbours):
    deleted, other = neighbours
    installation.catalog.forget(deleted.tenant_id)
    await world.send(*(event_of(deleted, str(n)) for n in range(30)), event_of(other, "after"))
    consumer = await world.consuming(retry=RetryPolicy(attempts=2, first_wait_s=0.01))
    await world.noted(other, "after")
    letters = await dead_letters(world, 30)
    assert {dict(letter.headers)["dlq-reason"] for letter in letters} == {b"UNKNOWN_TENANT"}
    assert not consumer.stopped_partitions()


async def test_a_deleted_tenant_is_not_waited_for_at_every_record(world, installation, neighbours):
    deleted, other = neighbours
    installation.catalog.forget(deleted.tenant_id)
    await world.send(*(event_of(deleted, str(n)) for n in range(5)), event_of(other, "after"))
    await world.consuming(retry=RetryPolicy(attempts=4, first_wait_s=0.01, unknown_tenant_s=0.0))
    await world.noted(other, "after")
    await dead_letters(world, 5)
    assert world.metrics.retries.labels(GROUP)._value.get() == 1


@pytest.mark.parametrize("sqlstate", ["25006", "53100", "53200", "53300", "58030", "XX000", "XX001", "XX002"])
async def test_records_of_a_tenant_whose_database_fails_are_parked_and_stop_nobody(
    world, neighbours, sqlstate
):
    ill, other = neighbours
    mended = asyncio.Event()

    async def handle(delivery, tx):
        if tx.tenant_id == ill.tenant_id and not mended.is_set():
            await tx.execute(f"do $$ begin raise 'fails' using errcode = '{sqlstate}'; end $$")
        await note_down(delivery, tx)

    notes = [str(n) for n in range(30)]
    await world.send(*(event_of(ill, note) for note in notes), event_of(other, "after"))
    consumer = await world.consuming({EVENTS_ACCEPTED: Each(handle)})
    await world.noted(other, "after")
    await parked(world, 30)
    assert not consumer.stopped_partitions()
    mended.set()
    await world.noted(ill, *notes)
    assert await dead_letters(world, 0) == []


async def test_a_handler_that_cannot_ask_whose_a_record_is_is_not_asked_again_at_once(world, neighbours):
    """Each question may take as long as an owner that says nothing is waited for."""
    new, other = neighbours
    known = asyncio.Event()

    async def handle(delivery, tx):
        if tx.tenant_id == new.tenant_id and not known.is_set():
            raise CatalogUnavailable(new.tenant_id)
        await note_down(delivery, tx)

    await world.send(event_of(new, "1"), event_of(new, "2"), event_of(other, "after"))
    slow = PartitionSettings(replay_s=600, replay_max_s=600)
    consumer = await world.consuming({EVENTS_ACCEPTED: Each(handle)}, partition=slow)
    await world.noted(other, "after")
    await parked(world, 2)
    assert world.metrics.retries.labels(GROUP)._value.get() == 0
    known.set()
    await consumer.stop(5)
    await world.consuming({EVENTS_ACCEPTED: Each(handle)})
    await world.noted(new, "1", "2")


async def held(world, tenant):
    """A connection in a transaction with the lock that every writing transaction of the tenant needs."""
    holder = await world.installation.connect(None, tenant.placement)
    await holder.execute("begin")
    await holder.execute("select pg_advisory_xact_lock(uuid_hash_extended($1, 0))", tenant.tenant_id)
    return holder


@pytest.mark.parametrize("retry", [RetryPolicy(attempts=2, first_wait_s=0.01), RetryPolicy(busy_s=0.0)])
@pytest.mark.parametrize("route", [Each(note_down), Batch(note_all_down, 10)], ids=["each", "batch"])
async def test_records_of_a_tenant_whose_database_is_locked_for_long_are_parked(
    world, neighbours, retry, route
):
    locked, other = neighbours
    holder = await held(world, locked)
    await world.send(event_of(locked, "1"), event_of(locked, "2"), event_of(other, "after"))
    impatient = world.installation.tenancy("rules_engine", PoolLimits(lock_timeout_s=0.05))
    await world.consuming({EVENTS_ACCEPTED: route}, transactions=impatient, retry=retry)
    await world.noted(other, "after")
    await parked(world, 2)
    await holder.execute("rollback")
    await world.noted(locked, "1", "2")
    assert await dead_letters(world, 0) == []


async def test_of_a_batch_that_is_too_much_for_the_database_each_record_is_applied(world, tenant):
    async def handle(deliveries, tx):
        if len(deliveries) > 1:
            await tx.execute("do $$ begin raise 'late' using errcode = 'query_canceled'; end $$")
        await note_all_down(deliveries, tx)

    await world.send(*(event_of(tenant, note) for note in "abc"))
    await world.consuming({EVENTS_ACCEPTED: Batch(handle, 10)})
    await world.noted(tenant, *"abc")
    await parked(world, 0)


async def test_a_tenant_over_its_rate_stops_nobody(world, neighbours):
    eager, other = neighbours

    async def only_others(delivery, tx):
        if tx.tenant_id == eager.tenant_id:
            raise TenantOverRate("TENANT_OVER_RATE", "too fast")
        await note_down(delivery, tx)

    consumer = await world.consuming(
        {EVENTS_ACCEPTED: Each(only_others)}, parking=ParkingLimits(tenant_rows=10)
    )
    for n in range(40):
        await world.send(event_of(eager, str(n)))
    await world.send(event_of(other, "innocent"))
    await world.noted(other, "innocent")
    letters = await dead_letters(world, 30)
    assert {dict(letter.headers)["dlq-reason"] for letter in letters} == {b"TENANT_OVER_RATE"}
    assert not consumer.stopped_partitions()


@pytest.mark.parametrize(("limits", "kept"), [(ParkingLimits(tenant_rows=1), 6), (ParkingLimits(rows=1), 1)])
async def test_nothing_of_a_paused_tenant_is_refused(world, tenant, limits, kept):
    """A tenant that cannot be served for now did nothing wrong: all of its records wait, in order."""
    tries, served = [], asyncio.Event()

    async def handle(delivery, tx):
        tries.append(delivery.message.events[0].id)
        if not served.is_set():
            raise TenantPaused("JUDGING_FAILED", "a defect of ours")
        await note_down(delivery, tx)

    await world.consuming({EVENTS_ACCEPTED: Each(handle)}, parking=limits)
    await world.send(event_of(tenant, "0"))
    await parked(world, 1)
    more = [str(n) for n in range(1, 6)]
    await world.send(*(event_of(tenant, note) for note in more))
    await parked(world, kept)
    tries.clear()
    await until(lambda: _equal(tries[:3], ["0"] * 3))
    served.set()
    await world.noted(tenant, "0", *more)
    assert await dead_letters(world, 0) == []


class LateLook:
    """Transactions; who first finds something parked, or nothing, is told so when it is let go."""

    def __init__(self, transactions, *, finds):
        self.transactions = transactions
        self.finds = finds
        self.waits = asyncio.Event()
        self.go = asyncio.Event()

    def __getattr__(self, name):
        return getattr(self.transactions, name)

    @asynccontextmanager
    async def control(self, principal, *, write):
        async with self.transactions.control(principal, write=write) as tx:
            yield (looking := Looking(tx))
        if looking.found == self.finds:
            self.waits.set()
            await self.go.wait()


class Looking:
    def __init__(self, tx):
        self.tx = tx
        self.found = None

    def __getattr__(self, name):
        return getattr(self.tx, name)

    async def fetch(self, sql, *arguments):
        rows = await self.tx.fetch(sql, *arguments)
        if sql == statements("rules_engine")["select_parked"]:
            self.found = bool(rows)
        return rows


async def test_what_is_parked_while_its_tenant_is_to_resume_is_replayed(world, tenant):
    late, served = LateLook(world.installation.tenancy("rules_engine"), finds=False), asyncio.Event()

    async def handle(delivery, tx):
        if not served.is_set():
            raise TenantPaused("JUDGING_FAILED", "a defect of ours")
        await note_down(delivery, tx)

    await world.consuming({EVENTS_ACCEPTED: Each(handle)}, transactions=late)
    await world.send(event_of(tenant, "parked"))
    await parked(world, 1)
    served.set()
    await asyncio.wait_for(late.waits.wait(), 60)
    await world.send(event_of(tenant, "newer"))
    await parked(world, 1)
    late.go.set()
    await world.noted(tenant, "parked", "newer")
    await parked(world, 0)


class Ahead(SystemClock):
    """Two hours ahead from some moment on."""

    hours = 0

    def now(self):
        return super().now() + timedelta(hours=self.hours)


async def test_what_waited_for_its_tenant_for_too_long_stops_nobody(world, neighbours):
    paused, other = neighbours
    clock, served = Ahead(), asyncio.Event()

    async def handle(delivery, tx):
        if tx.tenant_id == paused.tenant_id and not served.is_set():
            raise TenantPaused("JUDGING_FAILED", "a defect of ours")
        await note_down(delivery, tx)

    await world.consuming({EVENTS_ACCEPTED: Each(handle)}, clock=clock, inbox_retention=timedelta(hours=1))
    await world.send(*(event_of(paused, str(n)) for n in range(30)))
    await parked(world, 30)
    clock.hours = 2
    served.set()
    letters = await dead_letters(world, 30)
    assert {dict(letter.headers)["dlq-reason"] for letter in letters} == {b"TOO_OLD"}
    await world.send(replace(event_of(other, "after"), id=Uuid7(clock, os.urandom)()))
    await world.noted(other, "after")


async def test_a_handler_may_record_what_overflows(world, tenant):
    overflown = []

    async def handle(delivery, tx):
        if not delivery.overflow:
            raise TenantOverRate("TENANT_OVER_RATE", "too fast")
        overflown.append(delivery.message.events[0].id)

    slow = PartitionSettings(replay_s=600, replay_max_s=600)
    await world.consuming(
        {EVENTS_ACCEPTED: Each(handle)}, parking=ParkingLimits(tenant_rows=1), partition=slow
    )
    await world.send(event_of(tenant, "parked"))
    await parked(world, 1)
    await world.send(event_of(tenant, "too much"))
    await until(lambda: _equal(overflown, ["too much"]))


async def _equal(one, other):
    return one == other


@pytest.mark.parametrize(("rows", "size"), [(4, 10_000), (100, 10)])
def test_half_of_the_parking_is_for_databases_that_are_away(rows, size):
    limits = ParkingLimits(rows=rows, bytes=size)
    assert limits.of(over_rate=True)[:2] == (rows // 2, size // 2)
    assert limits.of(over_rate=False) == (rows, size, rows, size)
