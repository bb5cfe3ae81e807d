"""The public keys that verify tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tlsy.identity.ports import Tokens


class GetJwks:
    """From memory: as old as the last refresh of the ring."""

    def __init__(self, tokens: Tokens, cache_s: float) -> None:
        self._tokens = tokens
        self._cache_s = cache_s

    def run(self) -> tuple[str, int, float]:
        """RFC 7517 JSON, its version, and how many seconds it may be kept."""
        return *self._tokens.jwks(), self._cache_s
