"""What a former holder of the lease still does, and what several processes do at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tlsy.tenancy.context import IsolationMode, TenantState
from tlsy.tenancy.errors import LeaseLost, PlacementUnavailable
from tlsy.tenant_registry.domain.kinds import Verb
from tlsy.tenant_registry.domain.operation import Outcome, succeeded
from tlsy.tenant_registry.domain.tenant import deleted, resumed, suspended
from tlsy.tenant_registry.handlers.bootstrap import Bootstrap
from tlsy.tenant_registry.handlers.create_tenant import Installation
from tlsy.testkit.installation import CLUSTER

from .workshop import FR, HERE

COUNT = "select tenant_count from tenant_registry.clusters"
REACHED = "select unreachable_since is null as reached from tenant_registry.clusters"
TOLD = "select count(*) as n from tenant_registry.outbox where tenant_id = $1"


class Paused:
    """The placements of a process that stands still before, and again after, they are what they should be."""

    def __init__(self, executor, error=None):
        self._executor = executor
        self._error = error
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def converge(self, desired, progress=None):
        self.reached.set()
        await self.go_on.wait()
        if self._error is not None:
            raise self._error
        return await self._executor.converge(desired, progress)


def now_suspended(tenant, now):
    return suspended(tenant, None, "unpaid", now)


@pytest.mark.parametrize("error", [None, OSError("gone")])
@pytest.mark.parametrize("verb", [Verb.DELETE, Verb.CREATE])
async def test_what_another_has_ended_a_former_provisioner_ends_no_second_time(workshop, verb, error):
    await workshop.active(slug="stays")
    if verb is Verb.CREATE:
        tenant, operation = await workshop.create(IsolationMode.SHARED)
    else:
        tenant, operation = await workshop.closed(await workshop.active())
    former = Paused(workshop.executor(await workshop.lease()), error)
    late = asyncio.create_task(workshop.run_operation.run(operation, former))
    await former.reached.wait()
    await workshop.run_operation.run(operation, workshop.executor(await workshop.lease()))
    ended = await workshop.seen(tenant, operation)
    told = await workshop.fetch(TOLD, tenant.tenant_id)
    former.go_on.set()
    with pytest.raises(LeaseLost):
        await late
    assert await workshop.seen(tenant, operation) == ended
    assert ended[1].outcome is Outcome.SUCCEEDED
    assert await workshop.fetch(TOLD, tenant.tenant_id) == told
    assert (await workshop.fetch(COUNT))[0]["tenant_count"] == (2 if verb is Verb.CREATE else 1)


async def test_who_is_about_to_erase_does_not_call_a_deleted_tenant_deleting_again(workshop):
    gone, operation = await workshop.closed(await workshop.active())
    catalogue, now = workshop.catalogue, workshop.clock.now()
    executor = workshop.executor(await workshop.lease())
    async with catalogue.writing() as tx:
        (found,) = await catalogue.tenants.lock_line(tx, gone.tenant_id)
        late = asyncio.create_task(workshop.run_operation.run(operation, executor))
        await until_somebody_waits(workshop)
        await catalogue.tenants.save(tx, deleted(found, now))
        await catalogue.operations.save(tx, succeeded(operation), now)
    with pytest.raises(LeaseLost):
        await late
    seen, ended = await workshop.seen(gone, operation)
    assert (seen.state, ended.outcome) == (TenantState.DELETED, Outcome.SUCCEEDED)


@pytest.mark.parametrize("newer", [True, False])
async def test_a_fence_that_is_further_is_moved_only_if_the_catalogue_is_further_too(workshop, newer):
    """Else the catalogue was restored from before: whoever knows that fence's epoch writes on."""
    tenant = await workshop.active()
    owner = await workshop.installation.connect(None, workshop.installation.common)
    await owner.execute("update tlsy.fence set epoch = 5 where tenant_id = $1", tenant.tenant_id)
    closed, operation = await workshop.change(tenant, Verb.FENCE, now_suspended)
    placements = Paused(workshop.executor(await workshop.lease()))
    moving = asyncio.create_task(workshop.run_operation.run(operation, placements))
    await placements.reached.wait()
    if newer:
        await workshop.change(closed, Verb.FENCE, lambda at, now: resumed(at, None, now))
    placements.go_on.set()
    await moving
    _, at = await workshop.seen(closed, operation)
    assert (at.outcome, at.steps[0].error.partition(":")[0]) == (
        (Outcome.SUCCEEDED, "") if newer else (Outcome.RUNNING, "DATABASE_ERROR")
    )


async def test_whoever_places_a_tenant_waits_for_the_policy_that_is_being_changed(workshop):
    places = workshop.catalogue.places
    await workshop.active()

    async def read():
        async with workshop.catalogue.writing() as tx:
            return await places.country(tx, "fr")

    async with workshop.catalogue.writing() as tx:
        country = await places.lock_country(tx, "fr")
        reading = asyncio.create_task(read())
        await until_somebody_waits(workshop)
        await places.save_country(tx, replace(country, display_name="Changed"))
    assert (await reading).display_name == "Changed"


async def until_somebody_waits(workshop):
    """For a lock, in the control database."""
    waiting = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    watcher = await workshop.installation.connect(None, workshop.installation.control)
    async with asyncio.timeout(60):
        while not await watcher.fetch(waiting):
            await asyncio.sleep(0.01)


async def test_replicas_that_begin_an_installation_at_once_begin_it_once(workshop):
    installation = Installation(
        base_domain="tlsy.example",
        shared_database=workshop.installation.common.database,
        time_zones=frozenset({"Etc/UTC"}),
    )
    await asyncio.gather(*(Bootstrap(workshop.catalogue, installation, FR, HERE).once() for _ in range(3)))
    operations = await workshop.fetch("select 1 from tenant_registry.operations")
    tenants = await workshop.fetch("select 1 from tenant_registry.tenants")
    count = (await workshop.fetch(COUNT))[0]["tenant_count"]
    assert (len(tenants), len(operations), count) == (1, 1, 1)


@pytest.mark.parametrize(
    ("mode", "database", "refused", "reached"),
    [
        (IsolationMode.SHARED, "common", True, False),
        (IsolationMode.SHARED, "common", False, True),
        (IsolationMode.DEDICATED, "postgres", True, False),
        (IsolationMode.DEDICATED, "own", True, True),
        (IsolationMode.DEDICATED, "control", True, True),
    ],
)
async def test_a_cluster_is_away_if_nobody_connects_to_what_all_its_tenants_need(
    workshop, mode, database, refused, reached
):
    tenant, operation = await workshop.create(mode)
    names = {
        "common": workshop.installation.common.database,
        "control": workshop.installation.control.database,
        "own": tenant.database,
    }

    class Away:
        async def converge(self, desired, progress=None):
            place = replace(desired.placement, database=names.get(database, database))
            raise PlacementUnavailable(place, "away", refused=refused)

    await workshop.run_operation.run(operation, Away())
    assert (await workshop.fetch(REACHED))[0]["reached"] is reached


async def test_an_end_that_waits_for_the_cluster_holds_nothing_that_is_taken_after_it(workshop):
    """A creation's second attempt notes that the cluster answers; meanwhile a deletion gives room back."""
    catalogue, now = workshop.catalogue, workshop.clock.now()
    other = await workshop.active(slug="other")
    tenant, operation = await workshop.create(IsolationMode.SHARED)
    async with catalogue.writing() as tx:
        await catalogue.places.note_reachable(tx, CLUSTER, now, reachable=False)
    executor = workshop.executor(await workshop.lease())
    async with catalogue.writing() as tx:
        await catalogue.places.give_room_back(tx, CLUSTER)
        creating = asyncio.create_task(workshop.run_operation.run(replace(operation, attempts=1), executor))
        await until_somebody_waits(workshop)
        await catalogue.tenants.save(tx, other)
    await creating
    seen, ended = await workshop.seen(tenant, operation)
    assert (seen.state, ended.outcome, ended.attempts) == (TenantState.ACTIVE, Outcome.SUCCEEDED, 1)
