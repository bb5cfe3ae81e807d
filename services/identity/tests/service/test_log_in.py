from __future__ import annotations

import asyncio

import pytest

from tlsy.contracts.identity.v1 import identity_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="session")
WRONG = "not the password of anyone"


@pytest.mark.parametrize("tenant", ["shared", "schema", "dedicated"])
async def test_a_user_logs_in_at_either_replica_in_every_mode(suite, tenant) -> None:
    ada = await suite.person(tenant, "viewer")
    await suite.log_in(ada.tenant.slug, ada.email.upper(), replica=1)
    user = await suite.stub(await suite.into(tenant)).GetUser(pb.GetUserRequest(name=ada.name))
    assert user.last_log_in_time.seconds > user.create_time.seconds - 1
    outcomes = [(record.resource, record.outcome) for record in await suite.audited(tenant, "LogIn")]
    assert outcomes[-2:] == [(ada.name, "OK"), (ada.name, "OK")]


async def test_what_is_wrong_with_credentials_is_in_the_audit_log_alone(suite, refused) -> None:
    ada = await suite.person("shared", "viewer")
    errors = [
        await refused(suite.log_in("acme", ada.email, WRONG)),
        await refused(suite.log_in("acme", "nobody@example.org", WRONG)),
        await refused(suite.log_in("no-such-tenant", ada.email, WRONG)),
    ]
    assert {(error.reason, error.message) for error in errors} == {
        ("CREDENTIALS_WRONG", "Tenant, e-mail address and password do not go together.")
    }
    outcomes = [record.outcome for record in await suite.audited("shared", "LogIn")]
    assert outcomes[-2:] == ["PASSWORD_WRONG", "USER_UNKNOWN"]


async def test_wrong_passwords_lock_the_account_even_against_the_right_one(suite, refused) -> None:
    ada = await suite.person("shared", "viewer")
    for _ in range(5):
        await refused(suite.log_in("acme", ada.email, WRONG))
    error = await refused(suite.log_in("acme", ada.email))
    assert error.reason == "CREDENTIALS_WRONG"
    assert (await suite.audited("shared", "LogIn"))[-1].outcome == "ACCOUNT_LOCKED"
    user = await suite.stub(await suite.into("shared")).GetUser(pb.GetUserRequest(name=ada.name))
    assert user.HasField("locked_until")


async def test_guesses_at_once_get_no_more_tries_than_one_after_another(suite, refused) -> None:
    ada = await suite.person("shared", "viewer")
    attempts = [suite.log_in("acme", ada.email, WRONG, replica=number % 2) for number in range(20)]
    await asyncio.gather(*(refused(attempt) for attempt in attempts))
    outcomes = [
        record.outcome for record in await suite.audited("shared", "LogIn") if record.resource == ada.name
    ]
    assert outcomes.count("PASSWORD_WRONG") == 5
    assert outcomes.count("ACCOUNT_LOCKED") == 15


async def test_a_right_password_takes_the_wrong_ones_back(suite, refused) -> None:
    ada = await suite.person("shared", "viewer")
    for _ in range(3):
        for _ in range(4):
            await refused(suite.log_in("acme", ada.email, WRONG))
        await suite.log_in("acme", ada.email)


async def test_a_disabled_user_and_one_without_password_are_refused_like_a_stranger(suite, refused) -> None:
    admin, ada = await suite.into("shared"), await suite.person("shared", "viewer")
    change = pb.UpdateUserRequest(user=pb.User(name=ada.name, disabled=True))
    change.update_mask.paths.append("disabled")
    await suite.stub(admin).UpdateUser(change)
    parent, bob = "tenants/acme", pb.User(email=f"no-password-{ada.email}")
    await suite.stub(admin).CreateUser(pb.CreateUserRequest(parent=parent, user=bob))
    for email in (ada.email, bob.email):
        assert (await refused(suite.log_in("acme", email))).reason == "CREDENTIALS_WRONG"
    outcomes = [record.outcome for record in await suite.audited("shared", "LogIn")]
    assert outcomes[-2:] == ["USER_DISABLED", "NO_PASSWORD"]


async def test_nobody_logs_in_to_a_suspended_tenant(suite, refused) -> None:
    error = await refused(suite.log_in("asleep", "ada@example.org"))
    assert (type(error).__name__, error.reason) == ("FailedPrecondition", "TENANT_NOT_ACTIVE")
