from __future__ import annotations

import pytest

from tlsy.contracts.identity.v1 import identity_pb2
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2
from tlsy.rpc.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Violation,
)

TWO = [Violation("user.email", "EMAIL_INVALID", "has no @"), Violation("parent", "NAME_INVALID", "is empty")]


@pytest.mark.parametrize(
    ("error", "code", "what", "then"),
    [
        (NotFound("RULE_NOT_FOUND", "There is no such rule."), 1, "no such rule. (RULE_NOT_FOUND)", "list"),
        (PermissionDenied("PERMISSION_MISSING", "You may not."), 1, "PERMISSION_MISSING", "administrator"),
        (
            PermissionDenied("MODULE_DISABLED", "It is off.", metadata={"module": "expert-rules"}),
            1,
            "MODULE_DISABLED",
            "tlsy modules enable expert-rules",
        ),
        (PermissionDenied("NOT_AN_ANCESTOR", "Not below you."), 1, "NOT_AN_ANCESTOR", "--tenant"),
        (
            FailedPrecondition("MODULE_REQUIRED", "Switch off first: a."),
            1,
            "first: a",
            "tlsy modules disable",
        ),
        (FailedPrecondition("MODULE_REQUIRES", "Switch on first: a."), 1, "first: a", "tlsy modules enable"),
        (PermissionDenied("PARENT_NOT_OWN", "Below itself only."), 1, "PARENT_NOT_OWN", "--parent TENANT"),
        (Unauthenticated("CREDENTIALS_WRONG", "No match."), 4, "CREDENTIALS_WRONG", "Check --user"),
        (FailedPrecondition("USER_LIMIT", "You may have 2 users."), 1, "2 users", "tlsy users delete"),
        (ResourceExhausted("RATE_EXCEEDED", "Too fast.", retry_after_s=90), 1, "Too fast", "in 90 s"),
        (Unauthenticated("TOKEN_EXPIRED", "Too old."), 4, "TOKEN_EXPIRED", "tlsy login"),
        (Unavailable("DATABASE_AWAY", "Not now.", retry_after_s=0.01), 3, "DATABASE_AWAY", "Try again"),
    ],
)
async def test_a_refusal_is_two_lines_and_an_exit_code(tlsy, stand_in, error, code, what, then):
    stand_in.answers["GetRule"] = lambda _: error
    result = await tlsy("rules", "get", "hot")
    happened, next_step = result.err.splitlines()
    assert (result.code, result.out) == (code, "")
    assert what in happened
    assert next_step.startswith("next: ")
    assert then in next_step


@pytest.mark.parametrize(
    ("method", "reason", "role", "bounded"),
    [
        ("ListIncidents", "PERMISSION_MISSING", "onboarding", True),
        ("ExchangeToken", "PROVIDER_ACCESS_DENIED", "", True),
        ("ExchangeToken", "ONBOARDING_CLOSED", "", True),
        ("ListIncidents", "PERMISSION_MISSING", "client-admin", False),
        ("ExchangeToken", "PERMISSION_MISSING", "", False),
    ],
)
async def test_what_a_tenants_provider_access_forbids_is_told_as_that(
    tlsy, stand_in, method, reason, role, bounded
):
    stand_in.role_below = role
    stand_in.answers[method] = lambda _: PermissionDenied(reason, "You may not.")
    for _ in range(2):  # the second time the token may be one that is kept
        result = await tlsy("incidents", "list", "--tenant", "shop-lyon")
        assert ("tlsy tenants update shop-lyon --provider-access FULL" in result.err) is bounded
        assert ("Only its own client-admin, logged in there" in result.err) is bounded
        assert ("Ask an administrator for a role" in result.err) is not bounded


async def test_who_may_widen_a_tenants_provider_access_is_told(tlsy, stand_in):
    stand_in.answers["UpdateTenant"] = PermissionDenied("PROVIDER_ACCESS_GRANTED_BY_TENANT", "Not you.")
    result = await tlsy("tenants", "update", "shop-lyon", "--provider-access", "FULL")
    assert "Only the tenant's own client-admin may, logged in there" in result.err
    assert "tlsy context use NAME, tlsy login" in result.err


async def test_no_user_is_made_for_a_role_that_there_is_not(tlsy, stand_in):
    stand_in.answers["ListRoles"] = identity_pb2.ListRolesResponse(roles=[identity_pb2.Role(id="viewer")])
    result = await tlsy("users", "create", "a@b.c", "--role", "viewer", "--role", "vewer", stdin="secret\n")
    assert (result.code, "CreateUser" in stand_in.methods()) == (2, False)
    assert "no role 'vewer'" in result.err


async def test_a_user_whose_role_is_refused_is_told_to_be_there(tlsy, stand_in):
    stand_in.answers["ListRoles"] = identity_pb2.ListRolesResponse(roles=[identity_pb2.Role(id="viewer")])
    stand_in.answers["CreateRoleBinding"] = PermissionDenied("ROLE_ABOVE_CALLER", "Not yours to give.")
    result = await tlsy("users", "create", "a@b.c", "--role", "viewer", stdin="secret\n")
    assert (result.code, stand_in.only("CreateUser").request.user.email) == (1, "a@b.c")
    assert "tlsy --tenant home roles bind a@b.c viewer" in result.err


async def test_a_user_gets_each_role_once(tlsy, stand_in):
    roles = [identity_pb2.Role(id=name) for name in ("viewer", "analyst")]
    stand_in.answers["ListRoles"] = identity_pb2.ListRolesResponse(roles=roles)
    asked = ("--role", "viewer", "--role", "analyst", "--role", "viewer")
    result = await tlsy("users", "create", "a@b.c", *asked, stdin="secret\n")
    assert (result.code, stand_in.methods().count("CreateRoleBinding")) == (0, 2)


async def test_every_violation_is_listed_once(tlsy, stand_in):
    stand_in.answers["GetUser"] = InvalidArgument(violations=TWO)
    result = await tlsy("users", "get", "1")
    assert result.err.startswith(
        "error: The request is not valid. (REQUEST_INVALID)\n"
        "  user.email: EMAIL_INVALID: has no @\n  parent: NAME_INVALID: is empty\nnext: "
    )
    assert result.code == 1


async def test_violations_that_found_no_room_in_the_answer_are_counted(tlsy, stand_in):
    many = [Violation(f"labels[{n}]", "TOO_LONG", "is " + "very " * 40 + "long") for n in range(100)]
    stand_in.answers["GetUser"] = InvalidArgument(violations=many)
    *listed, told, _ = (await tlsy("users", "get", "1")).err.splitlines()
    assert told == f"  and {100 - (len(listed) - 1)} more that found no room in the answer"


@pytest.mark.parametrize("reason", ["COUNTRY_INVALID", "COUNTRY_UNKNOWN"])
async def test_who_names_no_country_is_told_where_they_are_listed(tlsy, stand_in, reason):
    wrong = [Violation("tenant.country", reason, "Not one.")]
    stand_in.answers["CreateTenant"] = InvalidArgument(violations=wrong)
    result = await tlsy("tenants", "create", "shop", "--display-name", "Shop", "--country", "xx")
    assert "tlsy countries list" in result.err.splitlines()[-1]


async def test_all_that_is_wrong_with_a_rule_is_told_also_when_its_name_is(tlsy, stand_in, tmp_path):
    violation = Violation("name", "RESOURCE_NAME_INVALID", "must be of the form …")
    stand_in.answers["PublishRule"] = InvalidArgument("REQUEST_INVALID", violations=[violation])
    problems = [
        rules_engine_pb2.RuleProblem(pointer=pointer, code="WRONG", message="no")
        for pointer in ("/name", "/for_s")
    ]
    stand_in.answers["ValidateRule"] = rules_engine_pb2.ValidateRuleResponse(problems=problems)
    file = tmp_path / "rule.json"
    file.write_text('{"name": "Bad Name", "for_s": -1}')
    result = await tlsy("rules", "publish", str(file))
    assert result.code == 1
    assert "rule.json has 2 problem(s)." in result.err
    assert "/name: WRONG: no" in result.err
    assert stand_in.only("ValidateRule").request.document == file.read_bytes()


async def test_what_is_wrong_with_a_whole_rule_is_told_as_validate_does(tlsy, stand_in, tmp_path):
    wrong = [Violation("", "TOO_COSTLY", "no")]
    stand_in.answers["PublishRule"] = InvalidArgument("RULE_INVALID", "No rule.", violations=wrong)
    problem = rules_engine_pb2.RuleProblem(pointer="", code="TOO_COSTLY", message="no")
    stand_in.answers["ValidateRule"] = lambda _: rules_engine_pb2.ValidateRuleResponse(problems=[problem])
    (tmp_path / "rule.json").write_text('{"name": "hot"}')
    validated, published = [
        (await tlsy("rules", verb, str(tmp_path / "rule.json"))).err for verb in ("validate", "publish")
    ]
    assert published == validated
    assert "  /: TOO_COSTLY: no\n" in published


async def test_a_rule_that_is_nested_too_deep_is_told(tlsy, stand_in):
    result = await tlsy("rules", "publish", "-", stdin="[" * 100_000)
    assert (result.code, "PublishRule" in stand_in.methods()) == (2, False)
    assert "error: - is not JSON" in result.err


async def test_a_rule_that_is_no_json_is_told_where(tlsy, stand_in):
    result = await tlsy("rules", "publish", "-", stdin='{"name": "hot",\n "match": {]}')
    assert (result.code, "PublishRule" in stand_in.methods()) == (2, False)
    assert "line 2 column 12" in result.err


@pytest.mark.parametrize("typed", ["nothere", ""])
async def test_what_is_no_incidents_id_is_not_asked_for(tlsy, stand_in, typed):
    result = await tlsy("incidents", "ack", typed)
    assert (result.code, "AcknowledgeIncident" in stand_in.methods()) == (2, False)
    assert f"{typed!r} is no incident's id." in result.err


async def test_a_server_that_is_away_is_told_with_what_to_check(tlsy, stand_in):
    await stand_in.down()
    result = await tlsy("tenants", "list")
    assert result.code == 3
    assert f"error: The server does not answer: nothing listens at {stand_in.target}." in result.err
    assert "tlsy context show" in result.err


async def test_without_a_credential_one_is_told_to_log_in(tlsy, stand_in):
    tlsy.context(address=stand_in.target)
    result = await tlsy("tenants", "list")
    assert (result.code, stand_in.asked) == (4, [])
    assert "Run: tlsy login" in result.err


async def test_a_key_file_that_is_empty_is_named(tlsy, stand_in, tmp_path):
    (tmp_path / "key").write_text("\n")
    result = await tlsy("tenants", "list")
    assert (result.code, stand_in.asked) == (4, [])
    assert f"{tmp_path / 'key'} is empty." in result.err


async def test_all_that_a_refused_key_may_be_is_named(tlsy, stand_in):
    stand_in.answers["ExchangeApiKey"] = Unauthenticated("API_KEY_REFUSED", "Not good (any more).")
    result = await tlsy("rules", "list")
    _, then = result.err.splitlines()
    assert result.code == 4
    assert "mistyped, has expired or was revoked" in then
    assert "tlsy keys create" in then


async def test_without_a_context_one_is_told_to_add_one(tlsy):
    tlsy.config.unlink()
    for args in (["tenants", "list"], ["tenants", "list", "--context", "prod"]):
        result = await tlsy(*args)
        assert result.code == 2
        assert f"{tlsy.config} does not exist" in result.err
        assert "TLSY_CONFIG" in result.err
        assert "tlsy context add" in result.err


@pytest.mark.parametrize(
    "args", [["login", "-u", "ada@acme.fr"], ["tenants", "update", "a", "--tier", "starter"]]
)
async def test_another_identity_of_a_suite_on_this_machine_is_made_from_its_file(tlsy, stand_in, args):
    stand_in.answers["UpdateTenant"] = PermissionDenied("PROVIDER_ACCESS_GRANTED_BY_TENANT", "Not you.")
    made = "tlsy context add NAME --user E-MAIL --default-tenant TENANT"
    assert f"{made} --from {tlsy.config}" in (await tlsy(*args)).err


async def test_another_identity_of_an_installation_elsewhere_is_made_with_its_address(tlsy):
    tlsy.context(address="prod:443", api_key_file="key")
    result = await tlsy("login", "-u", "ada@acme.fr")
    assert "tlsy context add NAME --user E-MAIL --default-tenant TENANT --address HOST:PORT" in result.err


async def test_a_service_without_an_address_is_named(tlsy, stand_in):
    tlsy.context(addresses={"identity": stand_in.target}, api_key_file="key")
    result = await tlsy("rules", "list")
    assert result.code == 2
    assert "no address of rules-engine" in result.err


async def test_nothing_to_change_is_an_error_of_usage(tlsy, stand_in):
    result = await tlsy("tenants", "update", "acme")
    assert (result.code, "UpdateTenant" in stand_in.methods()) == (2, False)


async def test_a_deletion_that_is_not_confirmed_is_not_asked_for(tlsy, stand_in):
    result = await tlsy("tenants", "delete", "acme", "--confirm", "acne")
    assert (result.code, stand_in.asked) == (2, [])


async def test_a_secret_that_cannot_be_written_is_told_by_what_is_wrong(tlsy, tmp_path):
    for name, then in (("no-dir/x", "a directory that is there"), ("key", "does not exist yet")):
        result = await tlsy("keys", "create", "a", "--output-file", str(tmp_path / name))
        assert (result.code, then in result.err) == (2, True)


async def test_a_password_of_another_encoding_is_told(tlsy, stand_in):
    tlsy.context(address=stand_in.target, tenant="acme", user="ada@acme.fr")
    result = await tlsy("login", stdin=b"secr\xe9t\n")
    assert (result.code, stand_in.asked) == (2, [])
    assert "not UTF-8" in result.err


async def test_a_document_of_another_encoding_goes_to_the_server_as_it_is(tlsy, stand_in):
    result = await tlsy("rules", "validate", "-", stdin=b"{\xe9}")
    assert (result.code, stand_in.only("ValidateRule").request.document) == (0, b"{\xe9}")
