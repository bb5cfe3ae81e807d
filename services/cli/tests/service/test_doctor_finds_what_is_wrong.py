from __future__ import annotations

import pytest
from grpc_health.v1 import health_pb2

from tlsy.cli.adapters.session import DESCRIPTORS


async def findings(tlsy):
    result = await tlsy("doctor", "-o", "json")
    return result.code, {row["check"]: row for row in result.json}


async def test_all_is_well(tlsy):
    code, found = await findings(tlsy)
    assert code == 0
    assert {row["state"] for row in found.values()} == {"OK"}
    assert {"python", "disk", "ports", "versions", "clock", *DESCRIPTORS} <= found.keys()


async def test_a_service_that_waits_for_something_is_told(tlsy, stand_in):
    name = DESCRIPTORS["ingestion"].full_name
    await stand_in.health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
    code, found = await findings(tlsy)
    assert (code, found["ingestion"]["state"], found["identity"]["state"]) == (1, "WRONG", "OK")


async def test_an_address_where_another_service_answers_is_told(tlsy, stand_in):
    await stand_in.down()
    await stand_in.up(services=("identity", "tenant-registry", "ingestion"))
    stand_in.health._server_status.pop(DESCRIPTORS["rules-engine"].full_name)
    _, found = await findings(tlsy)
    assert "another service answers" in found["rules-engine"]["finding"]


async def test_servers_that_are_away_are_each_told(tlsy, stand_in):
    await stand_in.down()
    code, found = await findings(tlsy)
    assert code == 1
    assert {found[service]["state"] for service in DESCRIPTORS} == {"WRONG"}
    assert found["clock"]["state"] == "UNKNOWN"
    assert all(row["next"] for row in found.values() if row["state"] != "OK")


@pytest.mark.parametrize(("ahead_s", "state"), [(0.5, "OK"), (60, "WRONG"), (-60, "WRONG")])
async def test_a_clock_that_is_off_is_told(tlsy, stand_in, ahead_s, state):
    stand_in.clock_ahead_s = ahead_s
    _, found = await findings(tlsy)
    assert found["clock"]["state"] == state


async def test_without_a_context_the_machine_is_checked_all_the_same(tlsy):
    tlsy.config.unlink()
    code, found = await findings(tlsy)
    assert (code, found["context"]["state"], found["python"]["state"]) == (1, "WRONG", "OK")
