from __future__ import annotations

import json
import resource
import stat

import pytest

from tlsy.contracts.identity.v1 import identity_pb2
from tlsy.rpc.errors import FailedPrecondition, Unauthenticated


async def test_a_key_is_exchanged_once_for_many_commands(tlsy, stand_in):
    for _ in range(3):
        await tlsy("rules", "list")
    assert stand_in.methods().count("ExchangeApiKey") == 1
    assert stand_in.only("ExchangeApiKey").request.api_key == "tlsy_key"


async def test_kept_tokens_are_readable_by_their_owner_alone(tlsy, tmp_path):
    await tlsy("rules", "list")
    assert stat.S_IMODE((tmp_path / "tokens.json").stat().st_mode) == 0o600


async def test_another_key_in_the_file_is_another_identity(tlsy, stand_in, tmp_path):
    await tlsy("rules", "list")
    (tmp_path / "key").write_text("another")
    await tlsy("rules", "list")
    assert stand_in.methods().count("ExchangeApiKey") == 2


@pytest.mark.parametrize("text", ["{oops", "[1]", "{}", '{"x": 1}', '{"[]": {}}', '{"[1]": 1}'])
async def test_a_damaged_cache_counts_as_empty(tlsy, stand_in, tmp_path, text):
    file = tmp_path / "tokens.json"
    file.write_text(text)
    assert (await tlsy("logout", "-o", "json")).json["forgotten"] == 0
    for _ in range(2):
        assert (await tlsy("rules", "list")).code == 0
    assert stand_in.methods().count("ExchangeApiKey") == 1


@pytest.mark.parametrize("change", [{"text": 1}, {"expires_at_s": "soon"}, {"more": ""}])
async def test_a_damaged_token_counts_as_none(tlsy, stand_in, tmp_path, change):
    await tlsy("rules", "list")
    file = tmp_path / "tokens.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({key: {**token, **change} for key, token in kept.items()}))
    for _ in range(2):
        assert (await tlsy("rules", "list")).code == 0
    assert stand_in.methods().count("ExchangeApiKey") == 2


async def test_a_cache_that_is_no_file_is_named_and_leaves_no_token_beside_it(tlsy, tmp_path):
    file = tmp_path / "tokens.json"
    file.mkdir()
    assert (await tlsy("logout", "-o", "json")).json["forgotten"] == 0
    result = await tlsy("rules", "list")
    assert (result.code, f"{file} cannot be written: Is a directory." in result.err) == (2, True)
    assert list(tmp_path.glob(".tokens*")) == []


async def test_a_tenant_below_is_acted_in_with_an_exchanged_token_and_a_reason(tlsy, stand_in):
    for _ in range(2):
        await tlsy("rules", "list", "--tenant", "child", "--reason", "ticket 7")
    exchange = stand_in.only("ExchangeToken")
    assert (exchange.request.target_tenant, exchange.request.reason) == ("tenants/child", "ticket 7")
    assert exchange.token == "home"
    asked = [each for each in stand_in.asked if each.method == "ListRules"]
    assert {(each.request.parent, each.token) for each in asked} == {("tenants/child", "child")}


async def test_another_reason_is_told_too(tlsy, stand_in):
    for reason in ("ticket 7", "ticket 8", "ticket 7"):
        await tlsy("rules", "list", "--tenant", "child", "--reason", reason)
    asked = [each.request.reason for each in stand_in.asked if each.method == "ExchangeToken"]
    assert asked == ["ticket 7", "ticket 8"]


async def test_a_tenants_provider_access_that_was_widened_is_taken_up_at_once(tlsy, stand_in):
    for role, count in (("onboarding", 1), ("client-admin", 2), ("client-admin", 2)):
        stand_in.role_below = role
        assert (await tlsy("users", "list", "--tenant", "child")).code == 0
        assert stand_in.methods().count("ExchangeToken") == count


async def test_the_registry_is_asked_with_the_token_of_ones_own_tenant(tlsy, stand_in):
    await tlsy("modules", "list", "--tenant", "child")
    asked = stand_in.only("ListModules")
    assert (asked.request.parent, asked.token) == ("tenants/child", "home")


async def test_a_refused_token_is_forgotten(tlsy, stand_in):
    stand_in.answers["ListRules"] = [Unauthenticated("TOKEN_REVOKED", "No.")]
    assert (await tlsy("rules", "list")).code == 4
    assert (await tlsy("rules", "list")).code == 0
    assert stand_in.methods().count("ExchangeApiKey") == 2


async def test_one_logs_in_by_password_and_out_again(tlsy, stand_in):
    tlsy.context(address=stand_in.target, tenant="acme", user="ada@acme.fr")
    stand_in.answers["LogIn"] = stand_in.logged_in
    assert (await tlsy("login", stdin="secret\n")).code == 0
    request = stand_in.only("LogIn").request
    assert (request.tenant, request.email, request.password) == ("tenants/acme", "ada@acme.fr", "secret")
    who = await tlsy("whoami", "-o", "json")
    assert (who.json["principal"], who.json["tenant"]) == ("tenants/acme/users/1", "tenants/acme")
    assert (await tlsy("rules", "list")).code == 0
    assert (await tlsy("logout", "-o", "json")).json["forgotten"] == 1
    assert (await tlsy("rules", "list")).code == 4


@pytest.mark.parametrize(
    ("args", "screen", "told"),
    [
        (["incidents", "list"], True, "in tenant home\n"),
        (["rules", "list", "--tenant", "home"], True, ""),
        (["rules", "list", "-o", "json"], True, ""),
        (["rules", "list"], False, ""),
        (["tenants", "list"], True, ""),
    ],
)
async def test_a_person_who_names_no_tenant_is_told_which_it_is(tlsy, args, screen, told):
    result = await tlsy(*args, screen=screen)
    assert (result.code, result.err) == (0, told)


async def test_a_log_in_that_has_ended_is_exit_code_4(tlsy, stand_in):
    tlsy.context(address=stand_in.target, tenant="acme", user="ada@acme.fr")
    stand_in.answers["LogIn"] = lambda request: short(stand_in.logged_in(request))
    await tlsy("login", stdin="secret\n")
    result = await tlsy("whoami")
    assert (result.code, "tlsy login" in result.err) == (4, True)


def short(answer):
    answer.token.expires_in.FromSeconds(1)
    return answer


async def test_a_context_with_a_key_is_nobody_elses(tlsy, stand_in):
    result = await tlsy("login", "--user", "ada@acme.fr", "--tenant", "acme", stdin="secret\n")
    assert (result.code, stand_in.asked) == (2, [])
    assert "tlsy context add" in result.err


async def test_one_who_logged_in_does_not_become_a_key_that_the_context_is_given(tlsy, stand_in, tmp_path):
    tlsy.context(address=stand_in.target, tenant="acme", user="ada@acme.fr")
    stand_in.answers["LogIn"] = stand_in.logged_in
    await tlsy("login", stdin="secret\n")
    assert (await tlsy("context", "add", "c", "--api-key-file", str(tmp_path / "key"))).code == 0
    assert (await tlsy("whoami", "-o", "json")).json["principal"] == "tenants/home/apiKeys/1"
    assert (await tlsy("context", "add", "c", "--user", "bob@acme.fr")).code == 0
    assert (await tlsy("whoami")).code == 4


async def test_whoami_tells_the_roles_of_the_token(tlsy):
    who = (await tlsy("whoami", "-o", "json", "--tenant", "child")).json
    assert who["roles"] == ["operator (supervision)"]
    assert (who["tenant"], who["actsIn"]) == ("tenants/home", "tenants/child")


async def test_the_secret_of_a_new_key_is_shown_once_or_put_in_a_new_file(tlsy, stand_in, tmp_path):
    stand_in.answers["CreateApiKey"] = lambda _: identity_pb2.CreateApiKeyResponse(secret="tlsy_s")
    assert (await tlsy("keys", "create", "a", "-o", "json")).json["secret"] == "tlsy_s"
    target = tmp_path / "agent.key"
    result = await tlsy("keys", "create", "a", "--output-file", str(target))
    assert "tlsy_s" not in result.out
    assert (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == ("tlsy_s\n", 0o600)


async def test_no_key_is_made_whose_secret_has_nowhere_to_go(tlsy, stand_in, tmp_path):
    result = await tlsy("keys", "create", "a", "--output-file", str(tmp_path / "key"))
    assert (result.code, "CreateApiKey" in stand_in.methods()) == (2, False)


async def test_a_key_that_is_refused_leaves_no_file(tlsy, stand_in, tmp_path):
    stand_in.answers["CreateApiKey"] = FailedPrecondition("API_KEY_LIMIT", "No more.")
    assert (await tlsy("keys", "create", "a", "--output-file", str(tmp_path / "new"))).code == 1
    assert not (tmp_path / "new").exists()


async def test_a_secret_that_the_disk_does_not_take_is_told(tlsy, stand_in, tmp_path):
    stand_in.answers["CreateApiKey"] = lambda _: identity_pb2.CreateApiKeyResponse(secret="tlsy_s")
    await tlsy("rules", "list")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        result = await tlsy("keys", "create", "a", "--output-file", str(tmp_path / "new"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (result.code, (tmp_path / "new").exists()) == (2, False)
    assert "tlsy keys revoke" in result.err
