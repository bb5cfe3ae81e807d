"""One installation without replicas; provisioners are made, and killed, by the test."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest

from tlsy.tenancy.context import PLATFORM, IsolationMode, Placement, TenantState
from tlsy.tenancy.errors import LeaseLost
from tlsy.tenancy.provisioning import DesiredState, plan
from tlsy.tenant_registry.domain.kinds import Verb
from tlsy.tenant_registry.domain.operation import Outcome
from tlsy.tenant_registry.domain.tenant import deleting, suspended

MODES = [IsolationMode.SHARED, IsolationMode.SCHEMA, IsolationMode.DEDICATED]


EVENT = """
insert into tenant_registry.outbox (tenant_id, day, event_id, key, type, source, epoch, occurred_at, data)
values ($1, (now() at time zone 'utc')::date, gen_random_uuid(), 'k', 'a.type', 'registry', 1, now(), '')
"""


class Slow:
    """Placements that take for ever to make, while fences move at once."""

    def __init__(self):
        self._executor: Any = None
        self.busy = 0

    def under(self, executor):
        self._executor = executor
        return self

    async def converge(self, desired, progress=None):
        if desired.state is not DesiredState.SUSPENDED:
            self.busy += 1
            await asyncio.Event().wait()
        return await self._executor.converge(desired, progress)


class Killed(BaseException):
    """A process ended here."""


class Mortal:
    """An executor whose process dies before or after its nth action."""

    def __init__(self, executor, actions, *, after):
        self._executor = executor
        self._left = actions
        self._after = after
        self.reached = False

    async def converge(self, desired, progress=None):
        for action in plan(desired, await self._executor.observe(desired)):
            if self._left == 0 and not self._after:
                self.reached = True
                raise Killed
            await progress(action)
            await self._executor.execute(desired, action)
            if self._left == 0:
                self.reached = True
                raise Killed
            self._left -= 1
        return ()


@pytest.mark.parametrize("mode", MODES)
async def test_killed_at_any_action_the_next_provisioner_ends_with_the_same_tenant(workshop, mode):
    reached, number = True, 0
    while reached:
        tenant, operation = await workshop.create(mode, f"acme-{number}")
        for after in (False, True):
            mortal = Mortal(workshop.executor(await workshop.lease()), number, after=after)
            with suppress(Killed):
                await workshop.run_operation.run(operation, mortal)
            reached = mortal.reached
            if not reached:
                break
        else:
            await workshop.run_operation.run(operation, workshop.executor(await workshop.lease()))
        seen, at = await workshop.seen(tenant, operation)
        assert (seen.state, seen.epoch, at.outcome) == (TenantState.ACTIVE, 1, Outcome.SUCCEEDED), number
        number += 1
    assert number >= 2


async def test_of_two_provisioners_one_works_and_the_other_takes_over_when_it_dies(workshop):
    first, second = (asyncio.create_task(workshop.provisioner(name).run(asyncio.Event())) for name in "ab")
    early = await workshop.until_done(*await workshop.create(IsolationMode.SHARED, "acme-early"))
    first.cancel()
    late = await workshop.until_done(*await workshop.create(IsolationMode.SCHEMA, "acme-late"))
    second.cancel()
    await asyncio.wait({first, second})
    assert [seen.state for seen, _ in (early, late)] == [TenantState.ACTIVE] * 2


async def test_who_lost_the_lease_changes_nothing_more(workshop):
    tenant, operation = await workshop.create(IsolationMode.SCHEMA)
    stale = workshop.executor(await workshop.lease(0.0, "the former"))
    await workshop.lease(60.0, "the next")
    with pytest.raises(LeaseLost):
        await workshop.run_operation.run(operation, stale)
    seen, at = await workshop.seen(tenant, operation)
    assert (seen.state, at.attempts, at.outcome) == (TenantState.PROVISIONING, 0, Outcome.RUNNING)


async def test_a_creation_that_keeps_failing_is_given_up_with_its_reason(workshop):
    class Failing:
        async def converge(self, desired, progress=None):
            raise OSError("the disk is full")

    tenant, operation = await workshop.create(IsolationMode.SHARED)
    stopping = asyncio.Event()
    running = asyncio.create_task(workshop.provisioner("a", lambda _: Failing()).run(stopping))
    seen, at = await workshop.until_done(tenant, operation)
    stopping.set()
    await running
    assert (seen.state, seen.failure_reason, at.attempts) == (TenantState.FAILED, "PROVISIONING_ERROR", 3)


@asynccontextmanager
async def creations_that_take_for_ever(workshop):
    for number in range(5):
        await workshop.create(IsolationMode.SHARED, f"slow-{number}")
    slow, never = Slow(), asyncio.Event()
    provisioner = workshop.provisioner("a test", lambda lease: slow.under(workshop.executor(lease)))
    running = asyncio.create_task(provisioner.run(never))
    async with asyncio.timeout(60):
        while slow.busy < 4:
            await asyncio.sleep(0.01)
    yield
    running.cancel()
    await asyncio.wait({running})
    assert slow.busy == 4


async def test_a_suspension_waits_for_nothing_that_takes_long(workshop):
    tenant = await workshop.active(slug="suspended")
    async with creations_that_take_for_ever(workshop):
        fence = await workshop.change(tenant, Verb.FENCE, lambda at, now: suspended(at, None, "unpaid", now))
        workshop.due.set()
        seen, ended = await workshop.until_done(*fence)
    assert (seen.state, ended.outcome) == (TenantState.SUSPENDED, Outcome.SUCCEEDED)


@pytest.mark.parametrize("retention", [timedelta(0), timedelta(days=30)])
async def test_who_is_deleted_is_closed_before_what_takes_long_has_ended(workshop, retention):
    tenant = await workshop.active(slug="deleted")
    async with creations_that_take_for_ever(workshop), asyncio.timeout(60):
        gone = await workshop.change(tenant, Verb.DELETE, lambda at, now: deleting(at, now + retention, now))
        workshop.due.set()
        while not (await workshop.seen(*gone))[1].is_done("fence"):
            await asyncio.sleep(0.01)
    _, at = await workshop.seen(*gone)
    assert not at.is_done("retain")
    placement = await workshop.installation.connect(None, workshop.installation.common)
    fence = await placement.fetchrow(
        "select epoch, writable from tlsy.fence where tenant_id = $1", gone[0].tenant_id
    )
    assert tuple(fence) == (gone[0].epoch, False)


@pytest.mark.parametrize("verb", [Verb.DELETE, Verb.FENCE])
async def test_an_operation_that_cannot_even_fail_stops_no_other(workshop, verb):
    """As of a tenant whose row was lost."""
    for number in range(6):
        lost, _ = await workshop.change(
            await workshop.active(slug=f"lost-{number}"), verb, lambda at, now: deleting(at, now, now)
        )
        await workshop.fetch("delete from tenant_registry.tenants where subject_id = $1", lost.tenant_id)
    stopping = asyncio.Event()
    running = asyncio.create_task(workshop.provisioner("a test").run(stopping))
    seen, _ = await workshop.until_done(*await workshop.create(IsolationMode.SHARED))
    stopping.set()
    await running
    assert seen.state is TenantState.ACTIVE


async def test_what_an_operation_that_cannot_even_fail_got_done_stays_done(workshop):
    class Losing:
        """Placements; the row of whom they are to erase is lost."""

        def __init__(self, executor):
            self._executor = executor

        async def converge(self, desired, progress=None):
            if desired.state is not DesiredState.ERASED:
                return await self._executor.converge(desired, progress)
            gone = "delete from tenant_registry.tenants where subject_id = $1"
            await workshop.fetch(gone, desired.tenant_id)
            raise OSError("the disk is full")

    tenant = await workshop.active()
    gone = await workshop.change(tenant, Verb.DELETE, lambda at, now: deleting(at, now, now))
    stopping = asyncio.Event()
    provisioner = workshop.provisioner("a test", lambda lease: Losing(workshop.executor(lease)))
    running = asyncio.create_task(provisioner.run(stopping))
    async with asyncio.timeout(60):
        while (at := (await workshop.seen(*gone))[1]).due_at < workshop.clock.now() + timedelta(seconds=30):
            await asyncio.sleep(0.01)
    stopping.set()
    await running
    assert [step.name for step in at.steps if step.done] == ["fence", "retain"]


async def test_a_full_database_is_known_to_who_places_the_next_until_there_is_room(workshop):
    catalogue = workshop.catalogue
    first = await workshop.active(IsolationMode.SCHEMA, "first")
    tenant, operation = await workshop.create(IsolationMode.SCHEMA, "second")
    lease = await workshop.lease()
    await workshop.run_operation.run(operation, workshop.executor(lease, max_relations=9))
    seen, _ = await workshop.seen(tenant, operation)
    assert (seen.state, seen.failure_reason, seen.placed) == (TenantState.FAILED, "CLUSTER_FULL", False)

    async def places():
        async with catalogue.tenancy.control(PLATFORM, write=False) as tx:
            (at,) = await catalogue.places.clusters(tx)
            return at.full(IsolationMode.SCHEMA), at.full(IsolationMode.SHARED)

    assert await places() == (True, False)
    _, deletion = await workshop.closed(first)
    await workshop.run_operation.run(deletion, workshop.executor(await workshop.lease()))
    assert await places() == (False, False)


async def test_a_deletion_waits_until_the_relay_has_told_what_happened(workshop):
    tenant = await workshop.active(IsolationMode.DEDICATED)
    place = Placement(tenant.cluster_id, tenant.database, "")
    owner = await workshop.installation.connect(None, place)
    await owner.execute(EVENT, tenant.tenant_id)
    gone = await workshop.closed(tenant)
    executor = workshop.executor(await workshop.lease())
    await workshop.run_operation.run(gone[1], executor)
    seen, at = await workshop.seen(*gone)
    errors = [step.error.partition(":")[0] for step in at.steps if step.error]
    assert (seen.state, at.outcome, errors) == (TenantState.DELETING, Outcome.RUNNING, ["OUTBOX_NOT_DRAINED"])
    assert await owner.fetchval("select count(*) from tenant_registry.outbox") == 1
    await owner.execute("set role tlsy_relay; update tenant_registry.outbox set published_at = now()")
    await owner.close()
    await workshop.run_operation.run(at, executor)
    assert (await workshop.seen(*gone))[1].outcome is Outcome.SUCCEEDED
