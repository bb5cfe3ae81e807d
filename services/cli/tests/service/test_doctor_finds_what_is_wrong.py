from __future__ import annotations

import pytest
from grpc import aio
from grpc_health.v1 import health_pb2

from tlsy.cli.adapters.session import DESCRIPTORS
from tlsy.contracts.identity.v1 import identity_pb2
from tlsy.rpc.errors import PermissionDenied, Unauthenticated
from tlsy.testkit.listening import listening
from tlsy.testkit.ports import free_port


async def findings(tlsy):
    result = await tlsy("doctor", "-o", "json")
    return result.code, {row["check"]: row for row in result.json}


async def test_all_is_well(tlsy):
    code, found = await findings(tlsy)
    assert code == 0
    assert {row["state"] for row in found.values()} == {"OK"}
    assert {"python", "disk", "ports", "versions", "clock", "credential", *DESCRIPTORS} <= found.keys()


async def test_a_disk_that_cannot_be_seen_hides_no_other_check(tlsy, tmp_path):
    tlsy.home = lambda: tmp_path / "gone"
    code, found = await findings(tlsy)
    assert (code, found["disk"]["state"], found["ports"]["state"]) == (1, "WRONG", "OK")
    assert f"{tmp_path}/gone: No such file" in found["disk"]["finding"]


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


@pytest.mark.parametrize("start", ["", "python -m tlsy.embedded --data-dir /d"])
async def test_a_suite_that_is_stopped_is_told_without_grpcs_words_and_with_how_to_start_it(
    tlsy, stand_in, start
):
    await stand_in.down()
    for address in (stand_in.target, f"127.0.0.1:{free_port()}"):
        tlsy.context(address=address, api_key_file="key", start=start)
        code, found = await findings(tlsy)
        assert code == 1
        for check in (*DESCRIPTORS, "credential"):
            assert f"nothing listens at {address}" in found[check]["finding"]
            assert start in found[check]["next"]
            assert not {"UNAVAILABLE", "FAILED_PRECONDITION", "UNKNOWN:"} & set(
                found[check]["finding"].split()
            )


@pytest.mark.parametrize(
    ("answer", "finding"),
    [(b"", "does not answer"), (b"HTTP/1.1 400 Bad\r\n\r\n", "is no gRPC server")],
    ids=["hangs up", "speaks HTTP/1.1"],
)
async def test_what_listens_there_and_is_no_server_is_told(tlsy, answer, finding):
    with listening(answer) as port:
        tlsy.context(address=f"127.0.0.1:{port}", api_key_file="key")
        code, found = await findings(tlsy)
    assert (code, finding in found["identity"]["finding"]) == (1, True), found


async def test_a_server_that_speaks_no_tls_is_told(tlsy, tmp_path):
    other = aio.server()
    port = other.add_insecure_port("127.0.0.1:0")
    await other.start()
    tlsy.context(address=f"127.0.0.1:{port}", api_key_file="key", tls={})
    code, found = await findings(tlsy)
    await other.stop(0)
    assert (code, "TLS with" in found["identity"]["finding"]) == (1, True), found


@pytest.mark.parametrize(("ahead_s", "state"), [(0.5, "OK"), (60, "WRONG"), (-60, "WRONG")])
async def test_a_clock_that_is_off_is_told(tlsy, stand_in, ahead_s, state):
    stand_in.clock_ahead_s = ahead_s
    _, found = await findings(tlsy)
    assert found["clock"]["state"] == state


async def test_a_key_that_is_revoked_is_told(tlsy, stand_in):
    stand_in.answers["ExchangeApiKey"] = Unauthenticated("API_KEY_UNKNOWN", "No such key.")
    code, found = await findings(tlsy)
    assert (code, found["credential"]["state"], found["clock"]["state"]) == (1, "WRONG", "UNKNOWN")
    assert "API_KEY_UNKNOWN" in found["credential"]["finding"]
    assert "revoked" in found["credential"]["next"]


async def test_a_principal_that_may_do_nothing_is_known_all_the_same(tlsy, stand_in):
    stand_in.answers["ListRoles"] = PermissionDenied("PERMISSION_MISSING", "You may not.")
    code, found = await findings(tlsy)
    assert (code, found["credential"]["finding"]) == (0, "tenants/home/apiKeys/1")


async def test_without_a_log_in_one_is_told_to(tlsy, stand_in):
    tlsy.context(address=stand_in.target, tenant="acme", user="ada@acme.fr")
    code, found = await findings(tlsy)
    assert (code, found["credential"]["state"]) == (1, "WRONG")
    assert "tlsy login" in found["credential"]["next"]


@pytest.mark.parametrize(("ahead_s", "state"), [(0.5, "OK"), (60, "WRONG")])
async def test_one_who_logged_in_is_told_of_the_clock_too_and_stays_it(tlsy, stand_in, ahead_s, state):
    tlsy.context(address=stand_in.target, tenant="acme", user="ada@acme.fr")
    stand_in.clock_ahead_s = ahead_s
    stand_in.answers["LogIn"] = stand_in.logged_in
    await tlsy("login", stdin="secret\n")
    _, found = await findings(tlsy)
    assert found["clock"]["state"] == state
    assert found["credential"] == {**found["credential"], "state": "OK", "finding": "tenants/acme/users/1"}
    assert (await tlsy("whoami", "-o", "json")).json["principal"] == "tenants/acme/users/1"
    stand_in.answers["ListRoles"] = Unauthenticated("TOKEN_REVOKED", "No.")
    code, found = await findings(tlsy)
    assert (code, found["credential"]["state"]) == (1, "WRONG")


async def test_what_is_not_known_is_no_success(tlsy, stand_in):
    stand_in.answers["ExchangeApiKey"] = identity_pb2.ExchangeApiKeyResponse(principal="p")
    code, found = await findings(tlsy)
    assert {row["check"] for row in found.values() if row["state"] != "OK"} == {"clock"}
    assert (code, found["clock"]["state"]) == (1, "UNKNOWN")


async def test_it_keeps_no_token(tlsy, stand_in, tmp_path):
    await findings(tlsy)
    assert not (tmp_path / "tokens.json").exists()


async def test_without_a_context_the_machine_is_checked_all_the_same(tlsy):
    tlsy.config.unlink()
    code, found = await findings(tlsy)
    assert (code, found["context"]["state"], found["python"]["state"]) == (1, "WRONG", "OK")
