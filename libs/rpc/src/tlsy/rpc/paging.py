"""Page tokens: where a listing goes on, bound to the listing.

A token is version, digest and cursor, in URL-safe base64. The digest covers the cursor, the tenant, the
method and every field of the request but page_token and page_size, so a token of another query, tenant or
method is refused. It is not a secret and has no key: the cursor only names a position among rows that the
same caller may list anyway (the tenant comes from the call's token, not from here), so forging one shows
nothing new.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Final, TypeVar

from tlsy.rpc.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.protobuf.message import Message

    from tlsy.rpc.call import Call

Cursor = tuple[str | int, ...]
M = TypeVar("M", bound="Message")
T = TypeVar("T")

_VERSION: Final = b"\x01"
_DIGEST_SIZE: Final = 12
_NOT_QUERY: Final = ("page_token", "page_size")
DEFAULT_PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1000
#: A client takes answers of 4 MiB unless it is told otherwise.
_MAX_PAGE_BYTES: Final = 3 * 1024 * 1024
#: Of a message in a list, beside its own.
_OVERHEAD_BYTES: Final = 6


def page_size(asked: int, *, default: int = DEFAULT_PAGE_SIZE, maximum: int = MAX_PAGE_SIZE) -> int:
    """How many rows to return; 0 asks for the default, more than the maximum gives the maximum."""
    return min(asked, maximum) if asked > 0 else default


def fitting(rows: Iterable[M], *, more: bool) -> tuple[list[M], bool]:
    """As many of the first rows as an answer may hold, one at least; and whether more follow."""
    taken: list[M] = []
    size = 0
    for row in rows:
        size += row.ByteSize() + _OVERHEAD_BYTES
        if taken and size > _MAX_PAGE_BYTES:
            return taken, True
        taken.append(row)
    return taken, more


class Pages:
    """The page tokens of one listing: this call's tenant and method, and this request's query."""

    __slots__ = ("_binding",)

    def __init__(self, call: Call, request: Message) -> None:
        query = type(request)()
        query.CopyFrom(request)
        for field in _NOT_QUERY:
            if field in query.DESCRIPTOR.fields_by_name:
                query.ClearField(field)
        head = f"{call.tenant_id}\0{call.method}\0".encode()
        self._binding = head + query.SerializeToString(deterministic=True)

    def token(self, cursor: Cursor | None) -> str:
        """The next_page_token for what follows `cursor`; "" where nothing follows."""
        if cursor is None:
            return ""
        body = json.dumps(cursor, separators=(",", ":"), ensure_ascii=False).encode()
        return base64.urlsafe_b64encode(_VERSION + self._digest(body) + body).decode().rstrip("=")

    def place(self, token: str, shape: tuple[type[str | int], ...], read: Callable[..., T]) -> T | None:
        """Where a page_token says that the listing goes on; None for the first page.

        Args:
            token: as the client sent it.
            shape: the types that the cursor's values must have, in order.
            read: makes the place of them, or raises ValueError or OverflowError: anybody can make up a token.

        Raises:
            InvalidArgument: reason PAGE_TOKEN_MISMATCH; the token is of another query, tenant, method or
                version, or never was one.
        """
        if not token:
            return None
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            version, digest, body = raw[:1], raw[1 : 1 + _DIGEST_SIZE], raw[1 + _DIGEST_SIZE :]
            if version != _VERSION or digest != self._digest(body):
                raise _mismatch()
            values = json.loads(body)
            if not isinstance(values, list) or tuple(type(value) for value in values) != shape:
                raise _mismatch()
            # What no database takes: half of a surrogate pair, which does not encode, and NUL.
            if any(b"\0" in value.encode() for value in values if isinstance(value, str)):
                raise _mismatch()
            return read(*values)
        except (ValueError, OverflowError):
            raise _mismatch() from None

    def _digest(self, body: bytes) -> bytes:
        return hashlib.blake2b(self._binding + b"\0" + body, digest_size=_DIGEST_SIZE).digest()


def _mismatch() -> InvalidArgument:
    text = "this token is of another query; begin again without it"
    return InvalidArgument(
        "PAGE_TOKEN_MISMATCH", violations=[Violation("page_token", "PAGE_TOKEN_MISMATCH", text)]
    )
