"""Listings, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

import typer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tlsy.cli.ports import Output

_MAX_PAGE: Final = 1000

Limit = Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="How many at most.")]


class _Request(Protocol):
    page_size: int
    page_token: str


async def paged(
    call: Callable[[Any], Awaitable[Any]], request: _Request, field: str, limit: int, output: Output
) -> list[Any]:
    """Up to `limit` items of a listing; says so where there are more."""
    request.page_size = min(limit, _MAX_PAGE)
    found: list[Any] = []
    while True:
        page = await call(request)
        found += getattr(page, field)
        request.page_token = page.next_page_token
        if len(found) > limit or (len(found) == limit and request.page_token):
            output.note(f"There are more than {limit}; see them with --limit.")
        if len(found) >= limit or not request.page_token:
            return found[:limit]
