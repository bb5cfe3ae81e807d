"""A mutation with a request_id happens once, and answers the same each time it is sent."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from google.protobuf.message import Message

from tlsy.tenancy.unit_of_work import IdempotentRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from tlsy.rpc.call import Call
    from tlsy.tenancy.unit_of_work import UnitOfWork

M = TypeVar("M", bound=Message)

_KEPT_FOR: Final = timedelta(hours=24)


async def answer_once(
    tx: UnitOfWork, call: Call, now: datetime, response_type: type[M], act: Callable[[], Awaitable[M]]
) -> M:
    """The answer that `act` gives, or gave when the same principal sent this request_id before.

    Claimed, acted on and remembered in the one transaction of `tx`, so of two at once the second waits and
    replays. Without a request_id it just acts. Kept for 24 hours.

    Raises:
        RequestIdReused: the request_id came with another body before (INVALID_ARGUMENT to the caller).
    """
    if call.request_id is None or call.principal is None:
        return await act()
    request = IdempotentRequest(
        principal=call.principal,
        method=call.method,
        request_id=call.request_id,
        body_hash=call.request_hash,
        now=now,
        expires_at=now + _KEPT_FOR,
    )
    stored = await tx.replay(request)
    if stored is not None:
        return response_type.FromString(stored)
    answer = await act()
    tx.remember(answer.SerializeToString())
    return answer
