"""Who may call what, in words of its own: what a proto declares too weak is noticed."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Final

import pytest
import pytest_asyncio
from google.protobuf.message_factory import GetMessageClass

from tlsy.contracts.identity.v1 import identity_pb2 as identity
from tlsy.contracts.options.v1 import options_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as registry

from .calls import RPCS
from .world import Onboarding, Tenant, World, until

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.asyncio(loop_scope="session")
_EVENTS: Final = frozenset({"QueryEvents", "TailEvents", "ListIngestOutcomes", "GetIngestUsage"})
_INCIDENTS: Final = frozenset({"GetIncident", "ListIncidents"})
_WORK: Final = frozenset({"AcknowledgeIncident", "ResolveIncident"})
_RULES: Final = frozenset(
    {"ValidateRule", "GetRule", "ListRules", "ListRuleVersions", "DiffRuleVersions", "ListObservedFields"}
)
_CHANGE_RULES: Final = frozenset({"PublishRule", "RollbackRule", "DisableRule"})
_OWN_TENANT: Final = frozenset(
    {"GetTenant", "GetOperation", "WaitOperation", "ListModules", "ListEntitlements"}
)
_ADMINISTER: Final = frozenset(
    {
        *("CreateUser", "GetUser", "ListUsers", "UpdateUser", "DeleteUser"),
        *("CreateRoleBinding", "ListRoleBindings", "DeleteRoleBinding", "ListRoles"),
        *("CreateApiKey", "ListApiKeys", "RevokeApiKey"),
    }
)
_READ: Final = _EVENTS | _INCIDENTS | _RULES | _OWN_TENANT
_ONE_S_OWN: Final = frozenset({"SetPassword"})
MAY: Final[Mapping[str, frozenset[str]]] = {
    "agent": frozenset({"IngestEvents"}),
    "viewer": _READ | _ONE_S_OWN,
    "operator": _READ | _ONE_S_OWN | _WORK,
    "rules-expert": _READ | _ONE_S_OWN | _CHANGE_RULES,
    "client-admin": _READ
    | _ONE_S_OWN
    | _WORK
    | _CHANGE_RULES
    | _ADMINISTER
    | {"IngestEvents", "CreateTenant", "ListTenants", "UpdateTenant", "ExchangeToken"},
}
OF_MODULE: Final[Mapping[str, frozenset[str]]] = {
    "expert-rules": _RULES | _CHANGE_RULES,
    "supervision": _EVENTS | _INCIDENTS | _WORK | {"IngestEvents"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tenant(world: World) -> Tenant:
    """Not among those of the world: its modules are switched off."""
    return await Onboarding(world).run("roles", "SHARED")


async def token_of(world: World, tenant: str, role: str, by: str) -> str:
    """Of a person of the tenant who has this role alone."""
    user = identity.User(email=f"{role}@roles.example", display_name=role)
    create = identity.CreateUserRequest(parent=tenant, user=user, password="a passphrase of theirs")
    made = await world.client.get("CreateUser", create, by)
    wanted = identity.RoleBinding(principal=made.name, role=role)
    bind = identity.CreateRoleBindingRequest(parent=tenant, role_binding=wanted)
    await world.client.get("CreateRoleBinding", bind, by)
    return await world._log_in(tenant, user.email, create.password)


async def refused(world: World, token: str, *reasons: str) -> set[str]:
    """RPCs that either replica refuses for one of these: they are told before the request is looked at.

    It is empty, so that what is let in does nothing.
    """
    found = set()
    for rpc, replica in product(RPCS, range(2)):
        if rpc.scope != options_pb2.SCOPE_PUBLIC:
            empty = GetMessageClass(rpc.method.input_type)()
            if (await world.client.ask(rpc, empty, token, replica)).reason in reasons:
                found.add(rpc.name)
    return found


def but(*rpcs: frozenset[str]) -> set[str]:
    """All that need a token, but these."""
    ours = {rpc.name for rpc in RPCS if rpc.scope != options_pb2.SCOPE_PUBLIC}
    assert ours >= frozenset().union(*rpcs)
    return ours.difference(*rpcs)


@pytest.mark.parametrize("role", MAY)
async def test_and_nothing_else(world: World, tenant: Tenant, role: str) -> None:
    by = tenant.tokens["client-admin"]
    token = tenant.tokens.get(role) or await token_of(world, tenant.names.tenant, role, by)
    assert await refused(world, token, "PERMISSION_MISSING", "PLATFORM_ONLY") == but(MAY[role])


async def test_a_reader_of_the_platform_may_do_nothing_that_is_the_platforms(world: World) -> None:
    token = await token_of(world, "tenants/platform", "viewer", world.root)
    of_platform = {rpc.name for rpc in RPCS if rpc.scope == options_pb2.SCOPE_PLATFORM}
    assert of_platform >= {"SuspendTenant", "DeleteTenant", "SetEntitlement", "RotateSigningKey"}
    assert of_platform - await refused(world, token, "PERMISSION_MISSING") == set()


async def test_what_is_of_a_module_that_is_off_is_refused(world: World, tenant: Tenant) -> None:
    off: set[str] = set()

    async def all_of_them() -> bool:
        return await refused(world, tenant.tokens["client-admin"], "MODULE_DISABLED") == off

    for module, rpcs in OF_MODULE.items():
        request = registry.SetModuleRequest(name=f"{tenant.names.tenant}/modules/{module}", enabled=False)
        await world.client.get("SetModule", request, world.root)
        off |= rpcs
        await until(all_of_them)
