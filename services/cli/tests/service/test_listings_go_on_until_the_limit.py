from __future__ import annotations

from tlsy.contracts.identity.v1 import identity_pb2


def users(first, count):
    return [
        identity_pb2.User(name=f"tenants/home/users/{n}", email=f"u{n}@x.y")
        for n in range(first, first + count)
    ]


def listing(total):
    """Pages of at most 3."""

    def answer(request):
        start = int(request.page_token or 0)
        count = min(3, request.page_size, total - start)
        token = str(start + count) if start + count < total else ""
        return identity_pb2.ListUsersResponse(users=users(start, count), next_page_token=token)

    return answer


async def test_every_page_is_fetched(tlsy, stand_in):
    stand_in.answers["ListUsers"] = listing(8)
    result = await tlsy("users", "list", "-o", "json")
    assert [user["email"] for user in result.json] == [f"u{n}@x.y" for n in range(8)]
    assert result.err == ""


async def test_what_is_beyond_the_limit_is_told_and_not_shown(tlsy, stand_in):
    stand_in.answers["ListUsers"] = listing(8)
    result = await tlsy("users", "list", "--limit", "5", "-o", "json")
    assert len(result.json) == 5
    assert "more than 5" in result.err


async def test_a_limit_that_is_just_enough_tells_nothing(tlsy, stand_in):
    stand_in.answers["ListUsers"] = listing(6)
    assert (await tlsy("users", "list", "--limit", "6")).err == ""


async def test_a_user_is_found_by_address(tlsy, stand_in):
    stand_in.answers["ListUsers"] = listing(8)
    assert (await tlsy("users", "get", "U7@x.y")).code == 0
    assert stand_in.only("GetUser").request.name == "tenants/home/users/7"
