"""Tokens between two runs, in a file that only its owner can read."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from tlsy.cli.adapters.files import write_private
from tlsy.cli.domain.tokens import AccessToken

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: A token that ends within this time is not used: a call may take as long.
_LEAST_LEFT_S: Final = 30.0


class TokenCache:
    """Keys are (context, purpose, tenant). What cannot be read as tokens counts as not there.

    Two commands at once may each write; the last one wins, and the other's token is got again when needed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, key: tuple[str, ...], now_s: float) -> AccessToken | None:
        """The token under `key`, if it is good for a while yet."""
        token = self._read().get(key)
        return token if token is not None and token.expires_at_s - now_s > _LEAST_LEFT_S else None

    def put(self, key: tuple[str, ...], token: AccessToken, now_s: float) -> None:
        """Keeps a token, and forgets those that have ended."""
        kept = {k: v for k, v in self._read().items() if v.expires_at_s > now_s}
        self._write({**kept, key: token})

    def forget(self, context: str) -> int:
        """Forgets all tokens of a context; returns how many there were."""
        kept = self._read()
        left = {key: value for key, value in kept.items() if key[0] != context}
        if len(left) < len(kept):
            self._write(left)
        return len(kept) - len(left)

    def _read(self) -> dict[tuple[str, ...], AccessToken]:
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        entries = (_entry(key, value) for key, value in kept.items()) if isinstance(kept, dict) else ()
        return dict(entry for entry in entries if entry is not None)

    def _write(self, kept: Mapping[tuple[str, ...], AccessToken]) -> None:
        entries = {json.dumps(key): asdict(token) for key, token in kept.items()}
        write_private(self._path, json.dumps(entries, indent=1))


def _entry(key: str, value: Any) -> tuple[tuple[str, ...], AccessToken] | None:
    try:
        context, *others = json.loads(key)
        token = AccessToken(**{**value, "expires_at_s": float(value["expires_at_s"])})
    except (LookupError, TypeError, ValueError):
        return None
    texts = (context, *others, token.text, token.tenant, token.principal)
    return ((context, *others), token) if all(isinstance(text, str) for text in texts) else None
