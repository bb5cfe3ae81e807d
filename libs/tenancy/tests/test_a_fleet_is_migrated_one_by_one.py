from __future__ import annotations

import os
from dataclasses import replace

import asyncpg
import pytest

from tlsy.runtime.clock import SystemClock
from tlsy.runtime.ids import TenantId, Uuid7
from tlsy.tenancy.context import IsolationMode
from tlsy.tenancy.database import PoolLimits
from tlsy.tenancy.errors import LeaseLost, PlacementUnavailable
from tlsy.tenancy.lease import take_lease
from tlsy.tenancy.migrations import MigrationFailed, Revision
from tlsy.tenancy.rollout import Target, hundredth, roll_out

IMPATIENT = PoolLimits(lock_timeout_s=0.5)


@pytest.fixture
def databases(installation):
    return installation.databases("tlsy_migrator", IMPATIENT)


@pytest.fixture
async def lease(installation, databases):
    async with databases.acquire(installation.control) as connection:
        return await take_lease(connection, "a test's", "a test", 60)


def target(installation, entry, *sql: str, **fields) -> Target:
    """The tenant after an upgrade that brings these revisions."""
    schemas, schema = installation.schemas, entry.placement.schema
    dedicated = entry.mode is IsolationMode.DEDICATED
    *others, last = schemas.dedicated() if dedicated else schemas.tenant(schema)
    more = tuple(Revision(f"1{number:03}", text) for number, text in enumerate(sql))
    upgraded = (*others, replace(last, revisions=last.revisions + more))
    return Target(tenant_id=entry.tenant_id, placement=entry.placement, components=upgraded, **fields)


async def test_who_fails_stays_behind_and_is_named_and_the_others_are_done(installation, databases, lease):
    modes = [IsolationMode.SCHEMA] * 3 + [IsolationMode.DEDICATED]
    entries = [await installation.provisioned_tenant(mode) for mode in modes]
    owner = await installation.connect(None, installation.common)
    await owner.execute(f"create table {entries[1].placement.schema}.extras (id int)")
    targets = [target(installation, each, "create table extras (tenant_id uuid)") for each in entries]
    outcomes = await roll_out(databases, targets, control=installation.control, lease=lease)
    failed = [outcome for outcome in outcomes if outcome.error]
    assert [outcome.target.tenant_id for outcome in failed] == [entries[1].tenant_id]
    assert isinstance(failed[0].error, MigrationFailed)
    assert [len(outcome.applied) for outcome in outcomes] == [1, 0, 1, 1]
    again = await roll_out(databases, targets, control=installation.control, lease=lease)
    assert [outcome.behind for outcome in again] == [False, True, False, False]


async def test_the_schemas_of_one_database_do_not_time_out_on_each_other(installation, databases, lease):
    entries = [await installation.provisioned_tenant(IsolationMode.SCHEMA) for _ in range(3)]
    targets = [target(installation, each, "select pg_sleep(0.6)") for each in entries]
    outcomes = await roll_out(databases, targets, control=installation.control, lease=lease)
    assert [outcome.error for outcome in outcomes] == [None] * 3


async def test_a_lock_that_is_not_had_and_a_database_that_is_away_stop_nobody_else(
    installation, databases, lease
):
    away, own, schema = [
        await installation.provisioned_tenant(mode)
        for mode in (IsolationMode.DEDICATED, IsolationMode.DEDICATED, IsolationMode.SCHEMA)
    ]
    away = replace(away, placement=replace(away.placement, database="t_" + "0" * 32))
    busy = await installation.connect("tlsy_migrator", installation.common)
    await busy.execute("select pg_advisory_lock(hashtext('tlsy.migrate'), 0)")
    targets = [target(installation, each, "create table extras (id int)") for each in (away, own, schema)]
    outcomes = await roll_out(databases, targets, control=installation.control, lease=lease)
    assert [type(outcome.error) for outcome in outcomes] == [
        PlacementUnavailable,
        type(None),
        asyncpg.LockNotAvailableError,
    ]


async def test_who_is_held_waits_and_goes_on_when_it_is_not(installation, databases, lease):
    entry = await installation.provisioned_tenant(IsolationMode.SCHEMA)
    held = target(installation, entry, "create table extras (id int)", held=True)
    (paused,) = await roll_out(databases, [held], control=installation.control, lease=lease)
    assert (paused.behind, paused.applied, paused.error) == (True, (), None)
    resumed = await roll_out(
        databases, [replace(held, held=False)], control=installation.control, lease=lease
    )
    assert [(each.behind, len(each.applied)) for each in resumed] == [(False, 1)]


async def test_who_lost_the_lease_migrates_nobody(installation, databases, lease):
    entry = await installation.provisioned_tenant(IsolationMode.SCHEMA)
    async with databases.acquire(installation.control) as connection:
        await take_lease(connection, "a test's", "a test", 60)
    targets = [target(installation, entry, "create table extras (id int)")]
    with pytest.raises(LeaseLost):
        await roll_out(databases, targets, control=installation.control, lease=lease)


def test_tenants_are_spread_over_the_hundredths():
    new_id = Uuid7(SystemClock(), os.urandom)
    assert len({hundredth(TenantId(new_id())) for _ in range(2_000)}) == 100
