from __future__ import annotations

import time
from collections import Counter
from uuid import uuid4

import pytest

from tlsy.contracts.audit_log.events.v1.events_pb2 import AuditRecorded
from tlsy.contracts.identity.v1 import identity_pb2 as pb
from tlsy.rpc.permissions import RoleBinding
from tlsy.rpc.tokens import IDENTITY_ISSUER, SUITE_AUDIENCE, TokenClaims, issue_token
from tlsy.runtime.ids import PrincipalName

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def refusals(suite, principal: str) -> Counter[tuple[str, str]]:
    """Method and outcome of what was refused to the principal, in whatever outbox."""
    found = {}
    tenants = (tenant.placement for tenant in suite.tenants.values())
    for place in {place.database: place for place in (suite.installation.control, *tenants)}.values():
        async with suite.administrator(place) as connection:
            rows = await connection.fetch(
                "select data from identity.outbox where type = 'tlsy.identity.audit.recorded.v1'"
            )
        for row in rows:
            record = AuditRecorded.FromString(row["data"])
            if record.principal == principal and record.outcome != "OK":
                found[record.record_id] = (record.method.rpartition("/")[2], record.outcome)
    return Counter(found.values())


async def test_whoever_tells_of_it(suite, refused, wait_until) -> None:
    admin = await suite.person("platform", "internal-admin")
    stub = suite.stub(admin.token)
    exchange = pb.ExchangeTokenRequest(target_tenant="tenants/no-such-tenant", reason="a test")
    assert (await refused(stub.ExchangeToken(exchange))).reason == "NOT_AN_ANCESTOR"
    own = pb.SetPasswordRequest(
        name=admin.name, new_password="an even longer passphrase", old_password="not my old password"
    )
    assert (await refused(stub.SetPassword(own))).reason == "OLD_PASSWORD_WRONG"
    # What the interceptor tells is written after the answer, in order: this is the last of it.
    other = pb.GetUserRequest(name="tenants/acme/users/x")
    assert (await refused(stub.GetUser(other))).reason == "CROSS_TENANT"

    async def all_told() -> bool:
        return ("GetUser", "CROSS_TENANT") in await refusals(suite, admin.name)

    await wait_until(all_told, 20.0)
    assert await refusals(suite, admin.name) == {
        ("ExchangeToken", "NOT_AN_ANCESTOR"): 1,
        ("SetPassword", "PASSWORD_WRONG"): 1,
        ("GetUser", "CROSS_TENANT"): 1,
    }


@pytest.mark.parametrize("role", ["internal-admin", "service"])
async def test_to_reach_for_a_role_that_nobody_has_there_is_one(suite, refused, wait_until, role) -> None:
    ada = await suite.person("shared", "client-admin")
    binding = pb.RoleBinding(principal=ada.name, role=role, module="palace")
    stub, parent = suite.stub(ada.token), "tenants/acme"
    for call in (
        stub.CreateRoleBinding(pb.CreateRoleBindingRequest(parent=parent, role_binding=binding)),
        stub.CreateApiKey(pb.CreateApiKeyRequest(parent=parent, display_name="\0", role=role)),
    ):
        assert (await refused(call)).reason == "ROLE_ABOVE_CALLER"

    async def told() -> bool:
        return await refusals(suite, ada.name) == {
            ("CreateRoleBinding", "ROLE_ABOVE_CALLER"): 1,
            ("CreateApiKey", "ROLE_ABOVE_CALLER"): 1,
        }

    await wait_until(told, 20.0)


async def test_also_of_a_suspended_tenant_which_takes_no_writes(suite, refused, wait_until) -> None:
    key, asleep, now = await suite.signer(), suite.tenants["suspended"], time.time()
    claims = TokenClaims(
        issuer=IDENTITY_ISSUER,
        principal=PrincipalName(f"tenants/{asleep.slug}/users/{uuid4()}"),
        tenant_id=asleep.tenant_id,
        slug=asleep.slug,
        audience=(SUITE_AUDIENCE,),
        roles=(RoleBinding("client-admin"),),
        issued_at=now,
        expires_at=now + 60,
        token_id="t",
        key_id=key.kid,
    )
    stub = suite.stub(issue_token(key, claims))
    exchange = pb.ExchangeTokenRequest(target_tenant="tenants/acme", reason="a test")
    assert (await refused(stub.ExchangeToken(exchange))).reason == "NOT_AN_ANCESTOR"

    async def told() -> bool:
        return await refusals(suite, claims.principal) == {("ExchangeToken", "NOT_AN_ANCESTOR"): 1}

    await wait_until(told, 20.0)
