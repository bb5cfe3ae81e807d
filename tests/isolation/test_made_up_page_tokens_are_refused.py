from __future__ import annotations

import base64
import json
from itertools import product
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest

from tlsy.contracts.options.v1 import options_pb2
from tlsy.rpc.paging import Pages
from tlsy.runtime.ids import PLATFORM_TENANT_ID

from .calls import RPCS
from .names import REQUESTS

if TYPE_CHECKING:
    from uuid import UUID

    from google.protobuf.message import Message

    from .calls import Answer, Rpc
    from .world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")
_PAGED: Final = tuple(rpc for rpc in RPCS if "page_token" in rpc.method.input_type.fields_by_name)
#: Values of a cursor; who lists by one of them, or by two, takes them for an id, a time, a name or a hash.
_VALUES: Final = ("", "no id", "a\0b", "\ud800", 0, -(10**18), 253402300799999999, 2**63, 10**300)
_CURSORS: Final = tuple(json.dumps(values) for length in (1, 2) for values in product(_VALUES, repeat=length))
_NO_CURSORS: Final = (
    "",
    "{}",
    "[]",
    "null",
    "[[]]",
    "[true]",
    "[1.5]",
    "[NaN]",
    "[" * 700,
    "[0,0,0]",
    '{"a":0}',
)
_NO_TOKENS: Final = ("x", "AQ", "%%%", "\u00e9", "A" * 1024, base64.urlsafe_b64encode(b"\1" * 60).decode())


def asked(world: World, rpc: Rpc) -> tuple[Message, UUID, str]:
    """A request for a first page, whose it is, and a token to ask it with."""
    tenant = world.tenants["shared-0"]
    request = REQUESTS[rpc.name](tenant.names)
    request.ClearField("page_token")
    if rpc.scope == options_pb2.SCOPE_TENANT:
        return request, tenant.tenant_id, tenant.tokens["client-admin"]
    return request, PLATFORM_TENANT_ID, world.root


def made_up(rpc: Rpc, request: Message, tenant_id: UUID, cursor: str) -> str:
    """A token of this listing, which anybody can make: it has no secret in it."""
    call: Any = SimpleNamespace(tenant_id=tenant_id, method=rpc.path[1:])
    pages, body = Pages(call, request), cursor.encode()
    return base64.urlsafe_b64encode(b"\1" + pages._digest(body) + body).decode().rstrip("=")


async def turned(world: World, rpc: Rpc, page_token: str) -> Answer:
    request, _, token = asked(world, rpc)
    request.page_token = page_token  # type: ignore[attr-defined]  # all of them have one
    return await world.client.ask(rpc, request, token)


def is_refused(answer: Answer) -> bool:
    return (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_MISMATCH")


@pytest.mark.parametrize("rpc", _PAGED, ids=lambda rpc: rpc.name)
async def test_what_is_no_token_or_another_listings(world: World, rpc: Rpc) -> None:
    others = [world.tenants["shared-0"].names.page_tokens[name] for name in ("ListUsers", "QueryEvents")]
    others = [token for token in others if not (await turned(world, rpc, token)).message]
    assert len(others) == (1 if rpc.name in ("ListUsers", "QueryEvents") else 2)
    request, tenant_id, _ = asked(world, rpc)
    broken = [made_up(rpc, request, tenant_id, text) for text in _NO_CURSORS]
    answers = {token: await turned(world, rpc, token) for token in (*others, *broken, *_NO_TOKENS)}
    assert {token: answer for token, answer in answers.items() if not is_refused(answer)} == {}


@pytest.mark.parametrize("rpc", _PAGED, ids=lambda rpc: rpc.name)
async def test_a_place_that_there_cannot_be_is_refused_and_nothing_breaks(world: World, rpc: Rpc) -> None:
    request, tenant_id, _ = asked(world, rpc)
    answers = {
        cursor: await turned(world, rpc, made_up(rpc, request, tenant_id, cursor)) for cursor in _CURSORS
    }
    others = {cursor: answer for cursor, answer in answers.items() if answer.message is None}
    assert {cursor: answer for cursor, answer in others.items() if not is_refused(answer)} == {}
    assert {cursor for cursor in answers if "\\u0000" in cursor or "\\ud800" in cursor} <= others.keys()
