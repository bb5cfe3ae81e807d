from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from tlsy.contracts.identity.v1 import identity_pb2 as pb
from tlsy.identity.handlers.create_role_binding import MAX_BINDINGS
from tlsy.rpc.permissions import MODULES

pytestmark = pytest.mark.asyncio(loop_scope="session")
ACME = "tenants/acme"


def bind(suite, token: str, principal: str, role: str, module: str = "", parent: str = ACME) -> Any:
    binding = pb.RoleBinding(principal=principal, role=role, module=module)
    request = pb.CreateRoleBindingRequest(parent=parent, role_binding=binding)
    return suite.stub(token).CreateRoleBinding(request)


async def binding_of(suite, token: str, principal: str, parent: str = ACME) -> Any:
    request = pb.ListRoleBindingsRequest(parent=parent, principal=principal)
    return (await suite.stub(token).ListRoleBindings(request)).role_bindings[0]


async def test_nobody_gives_more_than_they_have(suite, refused) -> None:
    lesser, parent = await suite.person("platform", "client-admin"), "tenants/platform"
    viewer = await suite.person("platform", "viewer")
    key = pb.CreateApiKeyRequest(parent=parent, display_name="k", role="internal-admin")
    for call in (
        bind(suite, lesser.token, viewer.name, "internal-admin", parent=parent),
        suite.stub(lesser.token).CreateApiKey(key),
    ):
        error = await refused(call)
        assert (error.reason, error.metadata) == ("ROLE_ABOVE_CALLER", {"roles": "internal-admin"})


async def test_nobody_takes_over_or_removes_who_has_more(suite, refused) -> None:
    lesser, parent = await suite.person("platform", "client-admin"), "tenants/platform"
    above = await suite.person("platform", "internal-admin")
    key = pb.CreateApiKeyRequest(parent=parent, display_name="k", role="internal-admin")
    made = (await suite.stub(await suite.root()).CreateApiKey(key)).api_key
    stub = suite.stub(lesser.token)
    change = pb.UpdateUserRequest(user=pb.User(name=above.name, disabled=True))
    change.update_mask.paths.append("disabled")
    held = await binding_of(suite, lesser.token, above.name, parent)
    for call in (
        stub.SetPassword(pb.SetPasswordRequest(name=above.name, new_password="a brand new passphrase")),
        stub.UpdateUser(change),
        stub.DeleteUser(pb.DeleteUserRequest(name=above.name)),
        stub.DeleteRoleBinding(pb.DeleteRoleBindingRequest(name=held.name)),
        stub.RevokeApiKey(pb.RevokeApiKeyRequest(name=made.name)),
    ):
        assert (await refused(call)).reason == "ROLE_ABOVE_CALLER"


@pytest.mark.parametrize(
    ("role", "module", "reasons"),
    [
        ("onboarding", "", {"ROLE_UNKNOWN"}),
        ("emperor", "palace", {"ROLE_UNKNOWN", "MODULE_UNKNOWN"}),
    ],
)
async def test_some_roles_are_for_nobody_here(suite, refused, role, module, reasons) -> None:
    ada = await suite.person("shared", "viewer")
    error = await refused(bind(suite, await suite.into("shared"), ada.name, role, module))
    assert {violation.reason for violation in error.violations} == reasons


async def test_every_problem_of_a_binding_is_told_at_once(suite, refused) -> None:
    error = await refused(bind(suite, await suite.into("shared"), f"{ACME}/users/x", "emperor", "palace"))
    assert [violation.reason for violation in error.violations] == [
        "RESOURCE_NAME_INVALID",
        "ROLE_UNKNOWN",
        "MODULE_UNKNOWN",
    ]


async def test_a_role_is_given_once_and_to_somebody(suite, refused) -> None:
    ada, token = await suite.person("shared", "viewer"), await suite.into("shared")
    assert (await refused(bind(suite, token, ada.name, "viewer"))).reason == "ROLE_ALREADY_BOUND"
    await bind(suite, token, ada.name, "viewer", "reporting")
    nobody = f"{ACME}/users/00000000-0000-7000-8000-000000000000"
    assert (await refused(bind(suite, token, nobody, "viewer"))).reason == "PRINCIPAL_NOT_FOUND"


async def test_a_principal_has_so_many_roles_as_fit_into_a_token(suite, refused) -> None:
    ada, token, platform = await suite.person("platform"), await suite.root(), "tenants/platform"
    roles = ("agent", "client-admin", "operator", "viewer", "rules-expert")
    places = [(role, module) for role in roles for module in ("", *sorted(MODULES))]
    assert len(places) == MAX_BINDINGS
    for role, module in places:
        await bind(suite, token, ada.name, role, module, platform)
    error = await refused(bind(suite, token, ada.name, "internal-admin", parent=platform))
    assert (type(error).__name__, error.reason) == ("FailedPrecondition", "ROLE_BINDING_LIMIT")
    await suite.log_in("platform", ada.email)


async def test_a_role_taken_away_is_gone_from_tokens_within_a_second(suite, wait_until) -> None:
    ada, admin = await suite.person("shared", "client-admin"), await suite.into("shared")
    held = await binding_of(suite, admin, ada.name)
    await suite.person("shared", "client-admin")
    await suite.stub(admin).DeleteRoleBinding(pb.DeleteRoleBindingRequest(name=held.name))
    users = pb.ListUsersRequest(parent=ACME)

    async def gone() -> bool:
        outcome = await asyncio.gather(suite.stub(ada.token, 1).ListUsers(users), return_exceptions=True)
        return isinstance(outcome[0], grpc.aio.AioRpcError)

    await wait_until(gone, 60.0)


async def test_the_last_administrator_stays_whatever_is_tried_at_once(suite, refused) -> None:
    admin, parent = await suite.into("schema"), "tenants/globex"
    both = [await suite.person("schema", "client-admin") for _ in range(2)]
    outcomes = await asyncio.gather(
        suite.stub(admin).DeleteUser(pb.DeleteUserRequest(name=both[0].name)),
        suite.stub(admin, 1).DeleteUser(pb.DeleteUserRequest(name=both[1].name)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, grpc.aio.AioRpcError) for outcome in outcomes) == 1
    last = both[0] if isinstance(outcomes[0], grpc.aio.AioRpcError) else both[1]
    disable = pb.UpdateUserRequest(user=pb.User(name=last.name, disabled=True))
    disable.update_mask.paths.append("disabled")
    held = await binding_of(suite, admin, last.name, parent)
    for call in (
        suite.stub(admin).UpdateUser(disable),
        suite.stub(admin).DeleteUser(pb.DeleteUserRequest(name=last.name)),
        suite.stub(admin).DeleteRoleBinding(pb.DeleteRoleBindingRequest(name=held.name)),
    ):
        assert (await refused(call)).reason == "LAST_ADMINISTRATOR"


async def test_who_has_no_password_does_not_count_as_an_administrator_who_stays(suite, refused) -> None:
    admin, parent = await suite.into("dedicated"), "tenants/initech"
    last = await suite.person("dedicated", "client-admin")
    email = pb.User(email="no-password@example.org")
    other = await suite.stub(admin).CreateUser(pb.CreateUserRequest(parent=parent, user=email))
    await bind(suite, admin, other.name, "client-admin", parent=parent)
    leave = pb.DeleteUserRequest(name=last.name)
    assert (await refused(suite.stub(admin).DeleteUser(leave))).reason == "LAST_ADMINISTRATOR"
    await suite.stub(admin).SetPassword(pb.SetPasswordRequest(name=other.name, new_password=last.password))
    await suite.stub(admin).DeleteUser(leave)


async def test_the_roles_of_a_tenant_are_those_that_can_be_bound_in_it(suite) -> None:
    request = pb.ListRolesRequest(parent=ACME)
    found = await suite.stub(await suite.into("shared")).ListRoles(request)
    assert [role.id for role in found.roles] == [
        "agent",
        "client-admin",
        "operator",
        "rules-expert",
        "viewer",
    ]
    assert "users.write" in next(role for role in found.roles if role.id == "client-admin").permissions
