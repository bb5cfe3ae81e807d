from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from tlsy.identity.adapters.postgres import read_statements
from tlsy.identity.adapters.postgres.users import PostgresUsers
from tlsy.identity.adapters.sealing import LookupHash, Sealer
from tlsy.identity.domain.ids import UserId
from tlsy.identity.domain.lockout import Attempts
from tlsy.identity.domain.users import User
from tlsy.tenancy.context import IsolationMode

if TYPE_CHECKING:
    from tlsy.testkit.installation import Installation

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FIRST = UUID(int=0)


def user(email: str = "Canary@Example.org") -> User:
    return User(
        id=UserId(uuid4()),
        email=email,
        display_name="Canary Canarsson",
        locale="sv",
        disabled=False,
        password_hash=None,
        attempts=Attempts(),
        create_time=NOW,
        last_log_in_time=None,
        version=1,
    )


@pytest.fixture
def users() -> PostgresUsers:
    return PostgresUsers(
        read_statements(), Sealer({"k": os.urandom(32)}, "k", os.urandom), LookupHash(os.urandom(32))
    )


@pytest.mark.parametrize("mode", list(IsolationMode))
async def test_a_user_is_found_by_any_spelling_and_nothing_personal_is_at_rest(
    installation: Installation, users: PostgresUsers, mode: IsolationMode
) -> None:
    tenant = await installation.provisioned_tenant(mode)
    tenancy, ada = installation.tenancy("identity"), user()
    async with tenancy.transaction(tenant.context, write=True) as tx:
        assert await users.insert(tx, ada)
        assert await users.lock_by_email(tx, "canary@EXAMPLE.org") == ada
        stored = await tx.fetchval("select users::text from users")
    assert "anary" not in stored


async def test_one_address_is_one_user_of_a_tenant(installation: Installation, users: PostgresUsers) -> None:
    one, two = await installation.provisioned_tenant(), await installation.provisioned_tenant()
    tenancy = installation.tenancy("identity")
    async with tenancy.transaction(one.context, write=True) as tx:
        assert await users.insert(tx, user())
        assert not await users.insert(tx, user("CANARY@example.ORG"))
    async with tenancy.transaction(two.context, write=True) as tx:
        assert await users.page(tx, FIRST, 10) == []
        assert await users.insert(tx, user())
        assert await users.count(tx) == 1


async def test_a_deleted_user_leaves_no_row(installation: Installation, users: PostgresUsers) -> None:
    tenant = await installation.provisioned_tenant()
    ada = user()
    async with installation.tenancy("identity").transaction(tenant.context, write=True) as tx:
        await users.insert(tx, ada)
        await users.delete(tx, ada.id)
        assert await tx.fetchval("select count(*) from users") == 0
