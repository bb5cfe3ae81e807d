from __future__ import annotations

import stat

import pytest

from tlsy.contracts.identity.v1 import identity_pb2 as pb
from tlsy.rpc.tokens import MAX_LIFETIME_S

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_first_administrator_is_made_once_by_two_replicas(suite) -> None:
    stub = suite.stub(await suite.root())
    users = await stub.ListUsers(pb.ListUsersRequest(parent="tenants/platform", page_size=1000))
    assert [user.email for user in users.users].count("root@platform.example") == 1
    keys = await stub.ListApiKeys(pb.ListApiKeysRequest(parent="tenants/platform"))
    assert [key.display_name for key in keys.api_keys].count("bootstrap") == 1


async def test_the_first_key_is_in_a_file_of_its_owners_alone_and_works(suite) -> None:
    path = suite.settings.bootstrap_key_file
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = await suite.key_token(path.read_text().strip())
    await suite.stub(token).ListRevocations(pb.ListRevocationsRequest())


@pytest.mark.parametrize("tenant", ["shared", "schema", "dedicated"])
async def test_revocations_of_every_tenant_are_listed_for_services_that_start(
    suite, wait_until, tenant
) -> None:
    key, _ = await suite.api_key(tenant)
    await suite.stub(await suite.into(tenant)).RevokeApiKey(pb.RevokeApiKeyRequest(name=key.name))
    stub = suite.stub(await suite.root(), 1)

    async def listed() -> bool:
        answer = await stub.ListRevocations(pb.ListRevocationsRequest())
        return (str(suite.tenants[tenant].tenant_id), key.name) in {
            (revocation.tenant_id, revocation.principal) for revocation in answer.revocations
        }

    await wait_until(listed, 60.0)


async def test_a_revocation_is_kept_for_as_long_as_a_token_of_longer_settings_may_live(suite) -> None:
    key, _ = await suite.api_key("shared")
    await suite.stub(await suite.into("shared")).RevokeApiKey(pb.RevokeApiKeyRequest(name=key.name))
    listed = await suite.stub(await suite.root()).ListRevocations(pb.ListRevocationsRequest())
    found = next(each for each in listed.revocations if each.principal == key.name)
    assert suite.settings.user_token_s < MAX_LIFETIME_S
    assert found.expire_time.ToSeconds() - found.revoke_time.ToSeconds() >= MAX_LIFETIME_S


async def test_revocations_are_for_the_platform_alone(suite, refused) -> None:
    stub = suite.stub(await suite.into("shared"))
    assert (await refused(stub.ListRevocations(pb.ListRevocationsRequest()))).reason == "PLATFORM_ONLY"
