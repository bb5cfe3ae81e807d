from __future__ import annotations

import asyncio

import pytest

from tlsy.rules_engine.domain.rows import unpack

from .world import accepted, event, until

STATE = "select owner, payload from rule_state where owner = $1"


async def evicted(world, tenant, other):
    """With room for one, the other's events take the tenant's."""
    await world.publish(other)
    await world.send(accepted(other, event()))
    await world.incident(other)


async def of_unknown_outcome(world, tenant, other):
    """As after a transaction whose commit nobody answered."""
    owner = await world.installation.connect("tlsy_migrator", tenant.placement)
    await owner.execute(
        "update shared.rule_set set stamp = gen_random_uuid() where tenant_id = $1", tenant.tenant_id
    )


async def spoilt(world, tenant, other):
    """Another of its rules cannot be judged any more."""
    owner = await world.installation.connect("tlsy_migrator", tenant.placement)
    spoil = r"update shared.rule_state set payload = '\xc1' where tenant_id = $1 and owner = $2"
    (rule,) = await world.rows(tenant, "select live_version from rules where rule_id = 'held'")
    await owner.execute(spoil, tenant.tenant_id, rule["live_version"])
    await of_unknown_outcome(world, tenant, other)


async def waiting(world, tenant, **changes):
    """A replica with room for one tenant, and the state of a rule that waits for its time."""
    await world.replica(max_tenants_in_memory=1)
    await world.publish(tenant, "held", for_s=3_600)
    rule = await world.publish(tenant, **changes)
    await world.send(accepted(tenant, event()))
    version = rule.live_version.rpartition("/")[2]
    (row,) = await until(lambda: world.rows(tenant, STATE, version))
    return unpack(row["payload"])


@pytest.mark.parametrize("loaded_again", [evicted, of_unknown_outcome, spoilt])
async def test_absence_is_noticed_in_time_though_the_tenant_was_loaded_again(
    world, tenant, other, loaded_again
):
    _, deadline_us, _ = await waiting(world, tenant, when=None, absence={"after_s": 90})
    await loaded_again(world, tenant, other)
    world.clock.ahead_s = 91
    assert (await world.incident(tenant)).open_time.ToMicroseconds() == deadline_us


async def test_a_held_condition_opens_in_time_though_the_tenant_was_evicted(world, tenant, other):
    await waiting(world, tenant, for_s=10, lateness_s=5)
    await evicted(world, tenant, other)
    world.clock.ahead_s = 76
    # The clock goes on: as a load that counts as hearing of its source, a minute later.
    async with asyncio.timeout(50):
        await world.incident(tenant)
