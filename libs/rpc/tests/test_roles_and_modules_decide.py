from __future__ import annotations

import pytest

from libs.rpc.tests.world import ACME, bearer, entry, refused
from tlsy.contracts.identity.v1 import identity_pb2 as identity
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as ingestion
from tlsy.rpc.permissions import DESCRIPTIONS, ROLES, RoleBinding, grants_of

READ_USER = identity.GetUserRequest(name="tenants/acme/users/u")
SEND = ingestion.IngestEventsRequest(parent="tenants/acme")


async def test_a_role_without_the_permission_is_refused_and_audited(world, client):
    error = await refused(client.identity.GetUser(READ_USER, metadata=bearer(world.token("viewer"))))
    assert (error.reason, error.metadata) == ("PERMISSION_MISSING", {"permission": "users.read"})
    denied = world.denials.calls[0]
    assert (denied.principal, denied.reason) == (world.claims().principal, "PERMISSION_MISSING")
    assert denied.resource == READ_USER.name


async def test_a_role_that_nobody_knows_permits_nothing(world, client):
    error = await refused(client.identity.GetUser(READ_USER, metadata=bearer(world.token("emperor"))))
    assert error.reason == "PERMISSION_MISSING"


async def test_a_module_that_is_off_is_refused(world, client):
    world.catalog.put(entry(ACME, "acme", modules=frozenset({"reporting"})))
    error = await refused(client.ingestion.IngestEvents(SEND, metadata=bearer(world.token("agent"))))
    assert (error.reason, error.metadata) == ("MODULE_DISABLED", {"module": "supervision"})


async def test_a_role_bound_to_a_module_counts_in_that_module_only(world, client):
    own = world.token(RoleBinding("agent", "supervision"))
    await client.ingestion.IngestEvents(SEND, metadata=bearer(own))
    elsewhere = world.token(RoleBinding("agent", "reporting"))
    error = await refused(client.ingestion.IngestEvents(SEND, metadata=bearer(elsewhere)))
    assert error.reason == "PERMISSION_MISSING"


async def test_a_role_bound_to_a_module_does_not_count_outside_modules(world, client):
    token = world.token(RoleBinding("client-admin", "supervision"))
    error = await refused(client.identity.GetUser(READ_USER, metadata=bearer(token)))
    assert error.reason == "PERMISSION_MISSING"


async def test_an_agent_sends_and_does_nothing_else(world, client):
    metadata = bearer(world.token("agent"))
    await client.ingestion.IngestEvents(SEND, metadata=metadata)
    assert (
        await refused(client.identity.GetUser(READ_USER, metadata=metadata))
    ).reason == "PERMISSION_MISSING"


def test_bindings_add_up():
    grants = grants_of([RoleBinding("viewer"), RoleBinding("rules-expert", "expert-rules")])
    assert "rules.write" in grants.permissions("expert-rules")
    assert "rules.write" not in grants.permissions("supervision")
    assert "events.read" in grants.permissions("supervision")


def test_only_the_platforms_administrators_have_the_platforms_permissions():
    for role in ROLES.keys() - {"internal-admin", "service"}:
        assert not ROLES[role] & {"tenants.suspend", "clusters.write", "keys.rotate", "catalog.read"}, role


@pytest.mark.parametrize("role", sorted(ROLES))
def test_every_role_is_described(role):
    assert DESCRIPTIONS[role]
