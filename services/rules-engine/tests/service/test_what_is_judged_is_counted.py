"""What is exported for Prometheus: how much, and never whose."""

from __future__ import annotations

import re

import pytest

from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb

from .world import accepted, event, now_us, until

DIVIDED = {"gt": [{"div": [{"field": "value"}, {"field": "value"}]}, 90]}


@pytest.mark.usefixtures("replica")
async def test_judgements_are_counted_by_what_became_of_them(world, tenant):
    await world.publish(tenant)
    await world.publish(tenant, "divided", when=DIVIDED)
    began = now_us()
    hot = [event(95, source=source, time_us=began) for source in ("agent/a", "agent/b")]
    late = event(95, source="agent/a", time_us=began - 3_600_000_000)
    await world.send(accepted(tenant, *hot, late))
    await world.incident(tenant, count=2)
    await world.send(accepted(tenant, event(0, source="agent/a", time_us=began + 1)))
    await world.incident(tenant, pb.INCIDENT_STATE_RESOLVED)
    counted = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in world.hosts[0].telemetry.registry.collect()
        for sample in metric.samples
        if re.fullmatch("tlsy_rules_.*(_total|_count)", sample.name) and sample.value
    }
    assert counted == {
        ("tlsy_rules_incidents_total", "opened"): 2,
        ("tlsy_rules_incidents_total", "resolved"): 1,
        ("tlsy_rules_left_out_total", "late_events"): 1,
        ("tlsy_rules_left_out_total", "zero_divisions"): 1,
        ("tlsy_rules_evaluation_seconds_count",): 2,
    }


@pytest.mark.usefixtures("replica")
async def test_timers_that_wait_for_a_tenant_are_an_alarm(world, tenant):
    await world.publish(tenant, when=None, absence={"after_s": 30})
    await world.send(accepted(tenant, event()))
    await until(lambda: world.rows(tenant, "select 1 from rule_state where owner <> 'source'"))

    async def late():
        return world.counted("tlsy_rules_timers_lag_seconds") > 500

    async def in_time():
        return world.counted("tlsy_rules_timers_lag_seconds") == 0

    await until(in_time)
    owner = await world.installation.connect("tlsy_migrator", tenant.placement)
    async with owner.transaction():
        await owner.execute("select from shared.rule_set for update")
        world.clock.ahead_s += 1_000
        await until(late)
    await until(in_time)
