"""One call, one tenant: the token's."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest

from libs.rpc.tests.world import ACME, ALICE, OTHER, SERVICES, bearer, entry, refused
from tlsy.contracts.identity.v1 import identity_pb2 as identity
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as ingestion
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as rules
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as registry
from tlsy.contracts.tenant_registry.v1.tenant_pb2 import Tenant
from tlsy.rpc.errors import PermissionDenied
from tlsy.rpc.methods import NameFields
from tlsy.rpc.tokens import Actor
from tlsy.runtime.ids import PLATFORM_TENANT_ID
from tlsy.tenancy.context import TenantState


async def test_the_call_carries_the_tokens_tenant(world, client):
    request = identity.GetUserRequest(name="tenants/acme/users/u")
    await client.identity.GetUser(request, metadata=bearer(world.token("client-admin")))
    call = world.identity.calls[0]
    assert call.required_tenant() == world.catalog.tenant(ACME)
    assert call.principal == world.claims().principal
    assert call.method == "tlsy.identity.v1.IdentityService/GetUser"


@pytest.mark.parametrize(
    ("access", "role", "let_in"),
    [
        ("FULL", "client-admin", True),
        ("ONBOARDING", "onboarding", True),
        ("ONBOARDING", "client-admin", False),
        ("NONE", "client-admin", False),
        ("NONE", "onboarding", False),
    ],
)
async def test_the_provider_acts_there_only_as_the_tenant_lets_it_now(world, client, access, role, let_in):
    token = world.token(role, actor=Actor(PLATFORM_TENANT_ID, ALICE))
    world.catalog.put(entry(ACME, "acme", provider_access=access))
    call = client.identity.GetUser(
        identity.GetUserRequest(name="tenants/acme/users/u"), metadata=bearer(token)
    )
    if let_in:
        await call
    else:
        error = await refused(call)
        assert (type(error), error.reason) == (PermissionDenied, "PROVIDER_ACCESS_DENIED")
        assert [denied.reason for denied in world.denials.calls] == ["PROVIDER_ACCESS_DENIED"]


async def test_a_head_office_asks_for_no_such_access(world, client):
    token = world.token("client-admin", actor=Actor(OTHER, ALICE))
    world.catalog.put(entry(ACME, "acme", provider_access="NONE"))
    await client.identity.GetUser(
        identity.GetUserRequest(name="tenants/acme/users/u"), metadata=bearer(token)
    )


FOREIGN = [
    ("GetUser", identity.GetUserRequest(name="tenants/other/users/u")),
    ("GetUser", identity.GetUserRequest(name="tenants/acme-two/users/u")),
    ("GetUser", identity.GetUserRequest(name="tenants/-/users/u")),
    ("GetUser", identity.GetUserRequest(name="tenants/")),
    ("CreateUser", identity.CreateUserRequest(parent="tenants/other", user=identity.User(email="a@b"))),
    (
        "CreateUser",
        identity.CreateUserRequest(parent="tenants/acme", user=identity.User(name="tenants/other/users/u")),
    ),
    (
        "CreateRoleBinding",
        identity.CreateRoleBindingRequest(
            parent="tenants/acme",
            role_binding=identity.RoleBinding(principal="tenants/other/users/u", role="viewer"),
        ),
    ),
]


@pytest.mark.parametrize(("method", "request_"), FOREIGN)
async def test_a_name_of_another_tenant_is_refused_before_the_handler(world, client, method, request_):
    call = getattr(client.identity, method)(request_, metadata=bearer(world.token("client-admin")))
    error = await refused(call)
    assert (type(error), error.reason) == (PermissionDenied, "CROSS_TENANT")
    assert world.identity.calls == []
    assert world.denials.calls[0].reason == "CROSS_TENANT"
    assert world.denials.calls[0].tenant_id == ACME


async def test_a_target_of_another_tenant_is_the_handlers_to_check(world, client):
    request = identity.ExchangeTokenRequest(target_tenant="tenants/other", reason="help")
    await client.identity.ExchangeToken(request, metadata=bearer(world.token("client-admin")))
    assert len(world.identity.calls) == 1


async def test_free_text_may_begin_like_a_name(world, client):
    request = identity.CreateUserRequest(
        parent="tenants/acme",
        user=identity.User(display_name="tenants/other is our rival"),
        password="tenants/other",
    )
    await client.identity.CreateUser(request, metadata=bearer(world.token("client-admin")))
    assert len(world.identity.calls) == 1


async def test_a_tenant_names_only_itself_in_methods_shared_with_the_platform(world, client):
    metadata = bearer(world.token("client-admin"))
    own = await client.registry.GetTenant(registry.GetTenantRequest(name="tenants/acme"), metadata=metadata)
    assert own.name == "tenants/acme"
    error = await refused(
        client.registry.GetTenant(registry.GetTenantRequest(name="tenants/other"), metadata=metadata)
    )
    assert error.reason == "CROSS_TENANT"


async def test_the_platform_names_any_tenant_there(world, client):
    metadata = bearer(world.platform_token("internal-admin"))
    answer = await client.registry.GetTenant(
        registry.GetTenantRequest(name="tenants/other"), metadata=metadata
    )
    assert answer.name == "tenants/other"


async def test_the_platform_names_no_tenant_in_tenants_methods(world, client):
    request = identity.GetUserRequest(name="tenants/other/users/u")
    metadata = bearer(world.platform_token("internal-admin"))
    assert (await refused(client.identity.GetUser(request, metadata=metadata))).reason == "CROSS_TENANT"


async def test_platform_methods_are_closed_to_tenants(world, client):
    request = registry.SuspendTenantRequest(name="tenants/acme", reason="x")
    metadata = bearer(world.token("internal-admin"))
    error = await refused(client.registry.SuspendTenant(request, metadata=metadata))
    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PLATFORM_ONLY")


async def test_services_call_the_control_plane_before_any_catalogue(world, client):
    world.catalog._known.clear()
    metadata = bearer(world.service_tokens().token_for("identity"))
    await client.identity.ListRevocations(identity.ListRevocationsRequest(), metadata=metadata)
    assert world.identity.calls[0].of_platform
    assert world.identity.calls[0].tenant is None


async def test_a_public_method_takes_no_token(world, client):
    request = identity.LogInRequest(tenant="tenants/acme", email="a@b", password="x")
    await client.identity.LogIn(request)
    assert world.identity.calls[0].claims is None


async def test_a_tenant_just_created_is_asked_for_once(world, client):
    world.catalog._known.clear()
    request = identity.GetUserRequest(name="tenants/acme/users/u")
    await client.identity.GetUser(request, metadata=bearer(world.token("client-admin")))
    assert world.catalog.refreshed == [ACME]


async def test_a_tenant_that_the_copy_has_unfinished_is_asked_for(world, client):
    world.catalog.put(entry(ACME, "acme", state=TenantState.PROVISIONING))
    world.catalog.put_behind(entry(ACME, "acme"))
    request = identity.GetUserRequest(name="tenants/acme/users/u")
    await client.identity.GetUser(request, metadata=bearer(world.token("client-admin")))
    assert len(world.identity.calls) == 1


async def test_an_unknown_tenants_token_is_refused(world, client):
    token = world.token("client-admin", tenant_id=OTHER)
    world.catalog._known.clear()
    world.catalog._owned.clear()
    error = await refused(client.identity.GetUser(identity.GetUserRequest(), metadata=bearer(token)))
    assert error.reason == "TENANT_UNKNOWN"


@pytest.mark.parametrize("state", [TenantState.PROVISIONING, TenantState.FAILED, TenantState.DELETING])
async def test_a_tenant_that_is_not_active_is_refused(world, client, state):
    world.catalog.put(entry(ACME, "acme", state=state))
    request = identity.GetUserRequest(name="tenants/acme/users/u")
    error = await refused(client.identity.GetUser(request, metadata=bearer(world.token("client-admin"))))
    assert (error.reason, error.metadata["state"]) == ("TENANT_NOT_ACTIVE", state)


async def test_a_suspended_tenant_still_reads(world, client):
    world.catalog.put(entry(ACME, "acme", state=TenantState.SUSPENDED))
    request = identity.GetUserRequest(name="tenants/acme/users/u")
    answer = await client.identity.GetUser(request, metadata=bearer(world.token("client-admin")))
    assert answer.name == request.name


PROTOS = Path(__file__).parents[3] / "protos/tlsy"


def documented_names() -> set[tuple[str, str]]:
    """(message, field) of every text field whose comment shows a name under a tenant."""
    found = set()
    for path in PROTOS.glob("*/v1/*.proto"):
        message, comment = "", ""
        for line in path.read_text().splitlines():
            if opened := re.match(r"message (\w+)", line):
                message = opened.group(1)
            if line.strip().startswith("//"):
                comment += line
                continue
            declared = re.match(r"\s+(?:repeated )?string (\w+) =", line)
            if declared and '"tenants/{' in comment:
                found.add((message, declared.group(1)))
            comment = ""
    return found


def looked_at(fields: NameFields, message) -> set[tuple[str, str]]:
    found = {(message.name, field) for field in (*fields._texts, *fields._repeated)}
    for field, _, inner in fields._messages:
        found |= looked_at(inner, message.fields_by_name[field].message_type)
    return found


def test_every_field_documented_as_a_name_is_looked_at():
    files = (identity, ingestion, rules, registry)
    requests = [
        method.input_type
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    seen = set().union(*(looked_at(NameFields(request), request) for request in requests))
    reachable = {message for message, _ in seen}
    expected = {pair for pair in documented_names() if pair[0] in reachable}
    assert len(expected) > 20
    assert expected - seen == set()


def test_a_name_in_a_repeated_or_nested_field_is_found():
    descriptor = SERVICES["registry"][0].methods_by_name["CreateTenant"].input_type
    request = registry.CreateTenantRequest(tenant=Tenant(parent="tenants/acme", host_names=["tenants/other"]))
    assert NameFields(descriptor).first_foreign(request, "tenants/acme") == "tenants/other"
    assert PLATFORM_TENANT_ID != ACME
