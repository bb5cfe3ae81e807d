"""Tokens between two runs, in a file that only its owner can read."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from tlsy.cli.adapters.files import write_private
from tlsy.cli.domain.tokens import AccessToken

if TYPE_CHECKING:
    from pathlib import Path

#: A token that ends within this time is not used: a call may take as long.
_LEAST_LEFT_S: Final = 30.0


class TokenCache:
    """Keys are (context, purpose, tenant). A file that cannot be read as such counts as empty.

    Two commands at once may each write; the last one wins, and the other's token is got again when needed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, key: tuple[str, ...], now_s: float) -> AccessToken | None:
        """The token under `key`, if it is good for a while yet."""
        kept = self._read().get(json.dumps(key))
        try:
            token = AccessToken(**kept) if kept is not None else None
        except TypeError:
            return None
        return token if token is not None and token.expires_at_s - now_s > _LEAST_LEFT_S else None

    def put(self, key: tuple[str, ...], token: AccessToken, now_s: float) -> None:
        """Keeps a token, and forgets those that have ended."""
        kept = {k: v for k, v in self._read().items() if v.get("expires_at_s", 0) > now_s}
        write_private(self._path, json.dumps({**kept, json.dumps(key): asdict(token)}, indent=1))

    def forget(self, context: str) -> int:
        """Forgets all tokens of a context; returns how many there were."""
        kept = self._read()
        left = {key: value for key, value in kept.items() if json.loads(key)[0] != context}
        if len(left) < len(kept):
            write_private(self._path, json.dumps(left, indent=1))
        return len(kept) - len(left)

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}
