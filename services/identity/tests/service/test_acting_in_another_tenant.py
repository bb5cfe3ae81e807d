from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from tlsy.contracts.audit_log.events.v1.events_pb2 import AuditRecorded
from tlsy.contracts.identity.v1 import identity_pb2 as pb
from tlsy.tenancy.context import TenantState

pytestmark = pytest.mark.asyncio(loop_scope="session")
PASSWORD = "a long enough passphrase"


def exchange(suite, token: str, slug: str) -> Any:
    request = pb.ExchangeTokenRequest(target_tenant=f"tenants/{slug}", reason="incident 4711")
    return suite.stub(token).ExchangeToken(request)


@pytest.mark.parametrize(
    ("tenant", "outcome"),
    [
        ("shared", "client-admin"),
        ("dedicated", "client-admin"),
        ("private", "PROVIDER_ACCESS_DENIED"),
        ("child", "PROVIDER_ACCESS_DENIED"),
        ("suspended", "TENANT_NOT_ACTIVE"),
        ("platform", "TARGET_IS_ORIGIN"),
    ],
)
async def test_the_provider_acts_in_a_tenant_as_that_tenant_lets_it(suite, refused, tenant, outcome) -> None:
    slug = suite.tenants[tenant].slug
    if outcome == "client-admin":
        answer = await exchange(suite, await suite.root(), slug)
        assert list(answer.roles) == ["client-admin"]
        users = pb.ListUsersRequest(parent=f"tenants/{slug}")
        await suite.stub(answer.token.access_token).ListUsers(users)
    else:
        error = await refused(exchange(suite, await suite.root(), slug))
        assert (type(error).__name__, error.reason) == ("PermissionDenied", outcome)


async def test_it_is_in_both_tenants_audit_logs_with_its_reason(suite, refused) -> None:
    await exchange(suite, await suite.root(), "globex")
    await refused(exchange(suite, await suite.root(), "private"))
    platform = str(suite.tenants["platform"].tenant_id)
    entered = (await suite.audited("schema", "ExchangeToken"))[-1]
    tried = (await suite.audited("private", "ExchangeToken"))[-1]
    assert (entered.outcome, tried.outcome) == ("OK", "PROVIDER_ACCESS_DENIED")
    for record in (entered, tried):
        assert record.principal.startswith("tenants/platform/users/")
        assert record.principal_tenant_id == platform
        assert record.details["reason"] == "incident 4711"
    origin = [(r.resource, r.outcome) for r in await suite.audited("platform", "ExchangeToken")]
    assert origin[-2:] == [("tenants/globex", "OK"), ("tenants/private", "PROVIDER_ACCESS_DENIED")]


@pytest.mark.parametrize("reason", ["", " \n\t", "\0", "\u00a0\u200b", "a\0b", "a\u202eb", "a\nb"])
async def test_nobody_enters_without_a_reason_that_can_be_read(suite, refused, reason) -> None:
    request = pb.ExchangeTokenRequest(target_tenant="tenants/globex", reason=reason)
    error = await refused(suite.stub(await suite.root()).ExchangeToken(request))
    assert [(told.field, told.reason) for told in error.violations] == [("reason", "REASON_UNREADABLE")]


async def test_what_is_done_there_is_audited_with_where_the_caller_is_from(suite) -> None:
    await suite.person("schema", "viewer")
    record = (await suite.audited("schema", "CreateUser"))[-1]
    assert record.principal.startswith("tenants/platform/users/")
    assert record.principal_tenant_id == str(suite.tenants["platform"].tenant_id)


async def test_what_is_only_read_there_is_audited_too(suite) -> None:
    """Where a suspended tenant's records are: in the control database."""
    users = pb.ListUsersRequest(parent="tenants/acme")
    await suite.stub(await suite.into("shared")).ListUsers(users)
    async with suite.administrator(suite.installation.control) as connection:
        rows = await connection.fetch("select data from identity.outbox order by seq")
    records = [AuditRecorded.FromString(row["data"]) for row in rows]
    acme = str(suite.tenants["shared"].tenant_id)
    read = [r for r in records if r.method.endswith("/ListUsers") and r.tenant_id == acme][-1]
    assert read.principal.startswith("tenants/platform/users/")
    assert read.principal_tenant_id == str(suite.tenants["platform"].tenant_id)


async def test_a_head_office_administers_its_subsidiary_and_nobody_elses(suite, refused) -> None:
    head = await suite.person("shared", "client-admin")
    answer = await exchange(suite, head.token, "acme-child")
    assert list(answer.roles) == ["client-admin"]
    for slug in ("globex", "platform", "no-such-tenant"):
        assert (await refused(exchange(suite, head.token, slug))).reason == "NOT_AN_ANCESTOR"


async def test_a_tenant_just_made_is_acted_in_at_once(suite) -> None:
    """The stand-in of the registry tells of it when it is asked, and only then."""
    root = await suite.root()
    made = [
        await suite.installation.provisioned_tenant(slug=f"just-made-{n}", provider_access="FULL", version=2)
        for n in range(2)
    ]
    for tenant in made:
        suite.tenants[tenant.slug] = tenant
        assert list((await exchange(suite, root, tenant.slug)).roles) == ["client-admin"]


async def test_a_tenant_whose_making_has_just_ended_is_acted_in_at_once(suite, refused) -> None:
    root, slug = await suite.root(), "just-ended"
    made = await suite.installation.provisioned_tenant(slug=slug, provider_access="FULL", version=2)
    suite.tenants[slug] = replace(made, state=TenantState.PROVISIONING, version=1)
    assert (await refused(exchange(suite, root, slug))).reason == "TENANT_NOT_ACTIVE"
    suite.tenants[slug] = made
    assert list((await exchange(suite, root, slug)).roles) == ["client-admin"]


async def test_an_exchanged_token_is_not_exchanged_again(suite, refused) -> None:
    error = await refused(exchange(suite, await suite.into("shared"), "acme-child"))
    assert error.reason == "ALREADY_EXCHANGED"


async def test_who_only_views_exchanges_nothing(suite, refused) -> None:
    viewer = await suite.person("platform", "viewer")
    assert (await refused(exchange(suite, viewer.token, "acme"))).reason == "PERMISSION_MISSING"


async def test_a_disabled_administrators_exchanged_tokens_end_too(suite, wait_until, refused) -> None:
    admin = await suite.person("platform", "internal-admin")
    before = (await exchange(suite, admin.token, "acme")).token.access_token
    change = pb.UpdateUserRequest(user=pb.User(name=admin.name, disabled=True))
    change.update_mask.paths.append("disabled")
    await suite.stub(await suite.root()).UpdateUser(change)
    users = pb.ListUsersRequest(parent="tenants/acme")

    async def ended() -> bool:
        outcome = await asyncio.gather(suite.stub(before).ListUsers(users), return_exceptions=True)
        return isinstance(outcome[0], Exception)

    await wait_until(ended, 60.0)
    assert (await refused(suite.stub(before).ListUsers(users))).reason == "TOKEN_REVOKED"


async def test_onboarding_makes_the_first_administrator_and_is_over_when_that_one_logs_in(
    suite, refused
) -> None:
    token = (await exchange(suite, await suite.root(), "new")).token.access_token
    stub, parent = suite.stub(token), "tenants/new"
    user = await stub.CreateUser(
        pb.CreateUserRequest(parent=parent, user=pb.User(email="first@new.example"), password=PASSWORD)
    )
    too_much = pb.RoleBinding(principal=user.name, role="operator")
    request = pb.CreateRoleBindingRequest(parent=parent, role_binding=too_much)
    assert (await refused(stub.CreateRoleBinding(request))).reason == "ROLE_ABOVE_CALLER"
    admin = pb.RoleBinding(principal=user.name, role="client-admin")
    await stub.CreateRoleBinding(pb.CreateRoleBindingRequest(parent=parent, role_binding=admin))
    key = pb.CreateApiKeyRequest(parent=parent, display_name="agent", role="agent")
    await stub.CreateApiKey(key)
    made = (await stub.ListApiKeys(pb.ListApiKeysRequest(parent=parent))).api_keys[0]
    held = (await stub.ListRoleBindings(pb.ListRoleBindingsRequest(parent=parent))).role_bindings[0]
    change = pb.UpdateUserRequest(user=pb.User(name=user.name, disabled=True))
    change.update_mask.paths.append("disabled")
    await suite.log_in("new", "first@new.example")
    for call in (
        stub.CreateApiKey(key),
        stub.RevokeApiKey(pb.RevokeApiKeyRequest(name=made.name)),
        stub.CreateUser(pb.CreateUserRequest(parent=parent, user=pb.User(email="second@new.example"))),
        stub.UpdateUser(change),
        stub.DeleteUser(pb.DeleteUserRequest(name=user.name)),
        stub.SetPassword(pb.SetPasswordRequest(name=user.name, new_password="a brand new passphrase")),
        stub.CreateRoleBinding(pb.CreateRoleBindingRequest(parent=parent, role_binding=admin)),
        stub.DeleteRoleBinding(pb.DeleteRoleBindingRequest(name=held.name)),
        stub.GetUser(pb.GetUserRequest(name=user.name)),
        stub.ListUsers(pb.ListUsersRequest(parent=parent)),
        stub.ListApiKeys(pb.ListApiKeysRequest(parent=parent)),
        stub.ListRoleBindings(pb.ListRoleBindingsRequest(parent=parent)),
    ):
        assert (await refused(call)).reason == "ONBOARDING_CLOSED"
    assert (await refused(exchange(suite, await suite.root(), "new"))).reason == "ONBOARDING_CLOSED"


async def test_an_exchanged_token_is_as_old_as_the_callers_and_ends_with_it(suite) -> None:
    caller = await suite.root()
    exchanged = (await exchange(suite, caller, "acme")).token.access_token
    before, after = payload(caller), payload(exchanged)
    assert after["iat"] == before["iat"]
    assert after["exp"] <= before["exp"]
    assert after["act"] == {"tid": str(suite.tenants["platform"].tenant_id), "sub": before["sub"]}
    assert (after["tid"], after["roles"]) == (
        str(suite.tenants["shared"].tenant_id),
        [["client-admin", None]],
    )


async def test_an_exchanged_token_is_for_no_more_services_than_the_callers(suite) -> None:
    request = pb.CreateApiKeyRequest(parent="tenants/platform", display_name="narrow", role="internal-admin")
    made = await suite.stub(await suite.root()).CreateApiKey(request)
    narrow = pb.ExchangeApiKeyRequest(api_key=made.secret, audience=["identity"])
    caller = (await suite.stub().ExchangeApiKey(narrow)).token.access_token
    exchanged = (await exchange(suite, caller, "acme")).token.access_token
    assert payload(exchanged)["aud"] == ["identity"]
    assert payload(await suite.into("shared"))["aud"] == ["tlsy"]


def payload(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return decoded
