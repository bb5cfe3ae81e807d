from __future__ import annotations

from dataclasses import replace

import asyncpg
import pytest

from tlsy.tenancy.cluster import MAINTENANCE_DATABASE
from tlsy.tenancy.context import IsolationMode, Placement
from tlsy.tenancy.errors import LeaseLost, PlacementFull, StaleEpoch
from tlsy.tenancy.executor import Executor
from tlsy.tenancy.lease import Lease, hold, renew_lease, take_lease
from tlsy.tenancy.provisioning import CreateSchema, DesiredState, DesiredTenant, plan
from tlsy.testkit.installation import CLUSTER

#: As PostgreSQL marks a database before it removes the files: nobody may connect, it can only be dropped.
HALF_DROPPED = "update pg_database set datconnlimit = -2, datistemplate = false where datname like $1"


def desired_of(entry, state=DesiredState.ACTIVE) -> DesiredTenant:
    return DesiredTenant(
        tenant_id=entry.tenant_id,
        mode=entry.mode,
        placement=entry.placement,
        epoch=entry.epoch,
        state=state,
    )


async def converge_dying_after_each_action(executor, desired) -> int:
    """Run until done, killed after the first action of every attempt; answers the attempts."""
    for attempt in range(20):
        actions = plan(desired, await executor.observe(desired))
        if not actions:
            return attempt
        await executor.execute(desired, actions[0])
    raise AssertionError("does not converge")


async def fresh(installation, mode):
    """A tenant that was erased again: known by name, with nothing of it left."""
    entry = await installation.provisioned_tenant(mode)
    await installation.converge(replace(entry, epoch=2), DesiredState.ERASED)
    return replace(entry, epoch=3)


@pytest.mark.parametrize("mode", list(IsolationMode))
async def test_a_tenant_becomes_active(installation, mode):
    entry, executor = await fresh(installation, mode), await installation.executor()
    assert await converge_dying_after_each_action(executor, desired_of(entry)) >= 2
    async with installation.tenancy("web_shop").transaction(entry.context, write=True) as tx:
        assert await tx.fetchval("select note from orders") == "welcome"


@pytest.mark.parametrize("mode", list(IsolationMode))
async def test_a_tenant_is_erased(installation, mode):
    entry, executor = await installation.provisioned_tenant(mode), await installation.executor()
    async with installation.tenancy("web_shop").control(entry.context, write=True) as tx:
        await tx.execute("insert into prices values ($1, 'pen', 1)", entry.tenant_id)
    gone = desired_of(replace(entry, epoch=2), DesiredState.ERASED)
    assert await converge_dying_after_each_action(executor, gone) >= 4
    observed = await executor.observe(gone)
    assert (observed.fence, observed.control_fence) == (None, None)
    assert not observed.occupied
    assert not observed.control_occupied
    assert observed.schema is (mode is IsolationMode.SHARED)


@pytest.mark.parametrize("mode", list(IsolationMode))
async def test_who_was_never_placed_is_erased_from_the_control_database_wherever_it_should_have_been(
    installation, mode
):
    entry, executor = await fresh(installation, mode), await installation.executor()
    owner = await installation.connect(None, installation.control)
    await owner.execute("insert into web_shop.prices values ($1, 'pen', 1)", entry.tenant_id)
    gone = replace(
        desired_of(entry, DesiredState.ERASED),
        placement=replace(entry.placement, cluster="never-built"),
        placed=False,
    )
    assert await converge_dying_after_each_action(executor, gone) >= 1
    assert await owner.fetchval("select count(*) from web_shop.prices") == 0


@pytest.mark.parametrize("mode", list(IsolationMode))
async def test_each_action_may_be_done_twice(installation, mode):
    entry, executor = await fresh(installation, mode), await installation.executor()
    desired = desired_of(entry)
    for action in plan(desired, await executor.observe(desired)):
        await executor.execute(desired, action)
        if not isinstance(action, CreateSchema):  # one transaction: there is no half of it to repeat
            await executor.execute(desired, action)
    assert plan(desired, await executor.observe(desired)) == ()


async def test_erasing_one_shared_tenant_leaves_the_others(installation):
    gone, stays = [await installation.provisioned_tenant() for _ in range(2)]
    await installation.converge(replace(gone, epoch=2), DesiredState.ERASED)
    async with installation.tenancy("web_shop").transaction(stays.context, write=False) as tx:
        assert await tx.fetchval("select count(*) from orders") == 1


async def test_what_is_kept_in_control_outlives_the_tenant(installation, fake_clock):
    entry = await installation.provisioned_tenant()
    async with installation.tenancy("web_shop").control(entry.context, write=True) as tx:
        await tx.execute("insert into prices values ($1, 'pen', 1)", entry.tenant_id)
    executor = await executor_with(installation, fake_clock, kept_in_control=("web_shop",))
    await executor.converge(desired_of(replace(entry, epoch=2), DesiredState.ERASED))
    owner = await installation.connect(None, installation.control)
    assert await owner.fetchval("select count(*) from web_shop.prices") == 1


async def executor_with(installation, clock, **options) -> Executor:
    """Another worker, which took the lease over."""
    databases = installation.databases("tlsy_migrator")
    await installation.executor()
    async with databases.acquire(installation.control) as connection:
        await connection.execute("update tlsy.lease set expires_at = now()")
        lease = await take_lease(connection, "provisioner", "another", 60)
        assert lease is not None
    return Executor(
        databases=databases,
        control=installation.control,
        schemas=installation.schemas,
        lease=lease,
        clock=clock,
        **options,
    )


async def test_a_worker_that_lost_its_lease_is_refused(installation, fake_clock):
    entry = await installation.provisioned_tenant()
    former = await installation.executor()
    await executor_with(installation, fake_clock)
    with pytest.raises(LeaseLost):
        await former.converge(desired_of(replace(entry, epoch=2), DesiredState.SUSPENDED))
    async with installation.tenancy("web_shop").transaction(entry.context, write=True) as tx:
        assert await tx.fetchval("select 1") == 1


async def test_a_lease_is_one_holders_until_it_expires(installation):
    connection = await installation.connect("tlsy_migrator", installation.control)
    assert await take_lease(connection, "worker", "a", 60) == Lease("worker", 1)
    assert await take_lease(connection, "worker", "b", 60) is None
    assert await take_lease(connection, "worker", "a", -1) == Lease("worker", 2)
    assert await take_lease(connection, "worker", "b", 60) == Lease("worker", 3)


async def test_a_lease_is_renewed_during_an_action_that_is_longer_than_it(installation):
    worker, same, other = [await installation.connect("tlsy_migrator", installation.control) for _ in "abc"]
    await same.execute("set lock_timeout = '1s'")
    await other.execute("set lock_timeout = '1s'")
    lease = await take_lease(worker, "worker", "a", 60)
    assert lease is not None
    async with hold(worker, lease):
        await renew_lease(same, lease, 60)
        assert await take_lease(other, "worker", "b", 60) is None
        async with hold(same, lease):
            await renew_lease(other, lease, 60)
    await renew_lease(worker, lease, 60)


async def test_who_takes_an_expired_lease_waits_for_the_action_and_then_excludes_the_former_holder(
    installation,
):
    former, other = [await installation.connect("tlsy_migrator", installation.control) for _ in "ab"]
    await other.execute("set lock_timeout = '100ms'")
    lease = await take_lease(former, "worker", "a", -1)
    assert lease is not None
    async with hold(former, lease):
        with pytest.raises(asyncpg.LockNotAvailableError):
            await take_lease(other, "worker", "b", 60)
    assert await take_lease(other, "worker", "b", 60) == Lease("worker", 2)
    with pytest.raises(LeaseLost):
        async with hold(former, lease):
            pytest.fail("the lease was lost")
    with pytest.raises(LeaseLost):
        await renew_lease(former, lease, 60)


async def test_a_suspension_waits_for_nobody_new_and_refuses_the_old_epoch(installation):
    entry = await installation.provisioned_tenant()
    await installation.converge(replace(entry, epoch=2), DesiredState.SUSPENDED)
    with pytest.raises(StaleEpoch):
        async with installation.tenancy("web_shop").transaction(entry.context, write=False):
            pass
    await installation.converge(replace(entry, epoch=3), DesiredState.ACTIVE)
    async with installation.tenancy("web_shop").transaction(
        replace(entry, epoch=3).context, write=True
    ) as tx:
        assert await tx.fetchval("select count(*) from orders") == 1


@pytest.mark.parametrize("state", [DesiredState.SUSPENDED, DesiredState.ERASED])
@pytest.mark.parametrize("mode", [IsolationMode.SCHEMA, IsolationMode.DEDICATED])
async def test_who_is_at_a_version_that_nobody_knows_is_closed_and_erased_all_the_same(
    installation, mode, state
):
    entry = await installation.provisioned_tenant(mode)
    owner = await installation.connect(None, entry.placement)
    await owner.execute(
        "update tlsy.version set revision = '0777' where schema_name = $1", entry.placement.schema
    )
    await owner.close()
    await installation.converge(replace(entry, epoch=2), state)
    control = await installation.connect(None, installation.control)
    writable = await control.fetch(
        "select from tlsy.fence where tenant_id = $1 and writable", entry.tenant_id
    )
    assert writable == []


async def test_a_full_database_takes_no_further_schema(installation, fake_clock):
    entry = await fresh(installation, IsolationMode.SCHEMA)
    executor = await executor_with(installation, fake_clock, max_relations=10)
    with pytest.raises(PlacementFull):
        await executor.converge(desired_of(entry))


async def test_a_database_whose_drop_was_interrupted_is_dropped(installation, fake_clock):
    entry = await installation.provisioned_tenant(IsolationMode.DEDICATED)
    server = await installation.connect(None, Placement(CLUSTER, MAINTENANCE_DATABASE, ""))
    await server.execute(HALF_DROPPED, entry.placement.database)
    executor = await executor_with(installation, fake_clock)
    await executor.converge(desired_of(replace(entry, epoch=2), DesiredState.ERASED))
    left = "select count(*) from pg_database where datname = $1"
    assert await server.fetchval(left, entry.placement.database) == 0
    control = await installation.connect(None, installation.control)
    assert await control.fetch("select from tlsy.fence where tenant_id = $1", entry.tenant_id) == []


async def test_a_template_whose_drop_was_interrupted_is_made_again(installation):
    await installation.provisioned_tenant(IsolationMode.DEDICATED)
    server = await installation.connect(None, Placement(CLUSTER, MAINTENANCE_DATABASE, ""))
    await server.execute("create database tlsy_template_former owner tlsy_owner")
    await server.execute(HALF_DROPPED, "tlsy\\_template\\_%")
    await installation.provisioned_tenant(IsolationMode.DEDICATED)
    left = "select datconnlimit from pg_database where datname like 'tlsy\\_template\\_%'"
    assert [row["datconnlimit"] for row in await server.fetch(left)] == [-1]
