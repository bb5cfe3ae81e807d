from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from tlsy.contracts.identity.v1 import identity_pb2 as pb
from tlsy.rpc.errors import FailedPrecondition
from tlsy.rpc.methods import request_hash

pytestmark = pytest.mark.asyncio(loop_scope="session")
ACME = "tenants/acme"
PASSWORD = "a long enough passphrase"

#: A UUID without its hyphens, the same in every test process.
UNDASHED = "0b6d7a396a684d7c8d61000000000001"


def new_user(**changes: Any) -> pb.CreateUserRequest:
    user = pb.User(email=f"{uuid4().hex}@example.org", display_name="Ada", locale="fr-FR")
    request = pb.CreateUserRequest(parent=ACME, user=user)
    request.MergeFrom(pb.CreateUserRequest(**changes))
    return request


def change_of(user: pb.User, *paths: str, **changes: Any) -> pb.UpdateUserRequest:
    request = pb.UpdateUserRequest(user=pb.User(name=user.name, **changes))
    request.update_mask.paths.extend(paths or changes)
    return request


@pytest.mark.parametrize("tenant", ["shared", "schema", "dedicated"])
async def test_what_is_created_is_read_back_changed_and_erased(suite, refused, tenant) -> None:
    stub, parent = suite.stub(await suite.into(tenant)), f"tenants/{suite.tenants[tenant].slug}"
    user = await stub.CreateUser(new_user(parent=parent))
    assert await stub.GetUser(pb.GetUserRequest(name=user.name)) == user
    changed = await stub.UpdateUser(change_of(user, "display_name", display_name="Ada L.", etag=user.etag))
    assert (changed.display_name, changed.locale) == ("Ada L.", "fr-FR")
    await stub.DeleteUser(pb.DeleteUserRequest(name=user.name, etag=changed.etag))
    error = await refused(stub.GetUser(pb.GetUserRequest(name=user.name)))
    assert error.reason == "USER_NOT_FOUND"


@pytest.mark.parametrize("around", ["\r\n", "\u3000" * 100])
async def test_an_address_is_kept_without_the_blanks_around_it(suite, around) -> None:
    stub, email = suite.stub(await suite.into("shared")), f"{uuid4().hex}@example.org"
    user = await stub.CreateUser(new_user(user=pb.User(email=around + email + around)))
    assert user.email == email


async def test_an_outdated_etag_is_refused(suite, refused) -> None:
    stub = suite.stub(await suite.into("shared"))
    user = await stub.CreateUser(new_user())
    await stub.UpdateUser(change_of(user, locale="sv"))
    change = change_of(user, "locale", locale="de", etag=user.etag)
    error = await refused(stub.UpdateUser(change))
    assert (type(error).__name__, error.reason) == ("Aborted", "ETAG_MISMATCH")
    deletion = pb.DeleteUserRequest(name=user.name, etag=user.etag)
    assert (await refused(stub.DeleteUser(deletion))).reason == "ETAG_MISMATCH"


async def test_a_request_sent_twice_makes_one_user_and_another_body_none(suite, refused) -> None:
    stub = suite.stub(await suite.into("shared"))
    request = new_user(request_id=str(uuid4()), password=PASSWORD)
    first = await stub.CreateUser(request)
    assert await stub.CreateUser(request) == first
    request.password = "some other passphrase"
    assert (await refused(stub.CreateUser(request))).reason == "REQUEST_ID_REUSED"


async def test_what_is_kept_of_a_request_lets_nobody_guess_its_password(suite) -> None:
    request = new_user(request_id=str(uuid4()), password=PASSWORD)
    await suite.stub(await suite.into("shared")).CreateUser(request)
    async with suite.administrator(suite.tenants["shared"].placement) as connection:
        rows = await connection.fetch(
            "select body_hash, response from identity.idempotency where request_id = $1", request.request_id
        )
    assert len(rows) == 1
    assert rows[0]["body_hash"] != request_hash(request)
    assert len(rows[0]["response"]) == 16


async def test_every_problem_is_told_at_once(suite, refused) -> None:
    request = pb.CreateUserRequest(
        parent=ACME,
        user=pb.User(email="not an address", display_name="\0", locale="??"),
        password="aaa\0",
    )
    error = await refused(suite.stub(await suite.into("shared")).CreateUser(request))
    assert {(violation.field, violation.reason) for violation in error.violations} == {
        ("user.email", "EMAIL_MALFORMED"),
        ("user.display_name", "DISPLAY_NAME_UNPRINTABLE"),
        ("user.locale", "LOCALE_MALFORMED"),
        ("password", "PASSWORD_TOO_SHORT"),
        ("password", "PASSWORD_HAS_NUL"),
        ("password", "PASSWORD_COMMON"),
    }


async def test_one_address_is_one_user_in_any_spelling(suite, refused) -> None:
    stub = suite.stub(await suite.into("shared"))
    user = await stub.CreateUser(new_user())
    again = new_user(user=pb.User(email=user.email.upper()))
    assert (await refused(stub.CreateUser(again))).reason == "EMAIL_TAKEN"


async def test_a_tenant_has_as_many_users_as_it_is_entitled_to(suite, refused) -> None:
    stub = suite.stub(await suite.into("small"))
    await stub.CreateUser(new_user(parent="tenants/small"))
    error = await refused(stub.CreateUser(new_user(parent="tenants/small")))
    assert (type(error), error.reason) == (FailedPrecondition, "USER_LIMIT")


async def test_a_listing_has_everybody_once_page_by_page(suite, refused) -> None:
    stub, parent = suite.stub(await suite.into("dedicated")), "tenants/initech"
    made = {(await stub.CreateUser(new_user(parent=parent))).name for _ in range(5)}
    names, token = [], ""
    while True:
        page = await stub.ListUsers(pb.ListUsersRequest(parent=parent, page_size=2, page_token=token))
        assert len(page.users) <= 2
        names += [user.name for user in page.users]
        token = page.next_page_token
        if not token:
            break
    assert made <= set(names)
    assert len(names) == len(set(names))
    other = pb.ListApiKeysRequest(parent=parent, page_token="AAAA")
    assert (await refused(stub.ListApiKeys(other))).reason == "PAGE_TOKEN_MISMATCH"


async def test_another_tenants_names_are_refused_before_anything_is_read(suite, refused) -> None:
    stranger = await suite.person("schema", "viewer")
    stub = suite.stub(await suite.into("shared"))
    binding = pb.RoleBinding(principal=stranger.name, role="viewer")
    for call in (
        stub.GetUser(pb.GetUserRequest(name=stranger.name)),
        stub.DeleteUser(pb.DeleteUserRequest(name=stranger.name)),
        stub.ListUsers(pb.ListUsersRequest(parent="tenants/globex")),
        stub.CreateUser(new_user(parent="tenants/globex")),
        stub.CreateRoleBinding(pb.CreateRoleBindingRequest(parent=ACME, role_binding=binding)),
        stub.SetPassword(pb.SetPasswordRequest(name=stranger.name, new_password=PASSWORD)),
    ):
        assert (await refused(call)).reason == "CROSS_TENANT"


async def test_another_tenants_id_under_ones_own_name_finds_nobody(suite, refused) -> None:
    stranger = await suite.person("schema", "viewer")
    name = stranger.name.replace("globex", "acme")
    call = suite.stub(await suite.into("shared")).GetUser(pb.GetUserRequest(name=name))
    assert (await refused(call)).reason == "USER_NOT_FOUND"


@pytest.mark.parametrize(
    "name", ["", "users/1", f"{ACME}/users/x", f"{ACME}/users/{UNDASHED}", f"{ACME}/x/y"]
)
async def test_a_name_that_is_none_is_refused(suite, refused, name) -> None:
    error = await refused(suite.stub(await suite.into("shared")).GetUser(pb.GetUserRequest(name=name)))
    assert [violation.reason for violation in error.violations] == ["RESOURCE_NAME_INVALID"]


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        (None, "UPDATE_MASK_EMPTY"),
        (FieldMask(), "UPDATE_MASK_EMPTY"),
        (FieldMask(paths=["email", "locale"]), "UPDATE_MASK_UNKNOWN_PATH"),
    ],
)
async def test_what_is_wrong_with_a_users_name_mask_and_values_is_told_at_once(
    suite, refused, mask, why
) -> None:
    asked = pb.User(name=f"{ACME}/users/x", display_name="\0", locale="??")
    request = pb.UpdateUserRequest(user=asked, update_mask=mask)
    error = await refused(suite.stub(await suite.into("shared")).UpdateUser(request))
    assert [(violation.field, violation.reason) for violation in error.violations] == [
        ("user.name", "RESOURCE_NAME_INVALID"),
        ("update_mask", why),
        ("user.display_name", "DISPLAY_NAME_UNPRINTABLE"),
        ("user.locale", "LOCALE_MALFORMED"),
    ]


async def test_a_value_that_a_good_mask_does_not_name_is_not_judged(suite, refused) -> None:
    request = pb.UpdateUserRequest(user=pb.User(name=f"{ACME}/users/x", display_name="\0", locale="??"))
    request.update_mask.paths.append("display_name")
    error = await refused(suite.stub(await suite.into("shared")).UpdateUser(request))
    assert [(violation.field, violation.reason) for violation in error.violations] == [
        ("user.name", "RESOURCE_NAME_INVALID"),
        ("user.display_name", "DISPLAY_NAME_UNPRINTABLE"),
    ]


async def test_only_some_fields_can_be_changed(suite, refused) -> None:
    stub = suite.stub(await suite.into("shared"))
    user = await stub.CreateUser(new_user())
    for paths in ((), ("email",), ("locked_until", "etag")):
        request = change_of(user, "locale")
        del request.update_mask.paths[:]
        request.update_mask.paths.extend(paths)
        assert type(await refused(stub.UpdateUser(request))).__name__ == "InvalidArgument"
