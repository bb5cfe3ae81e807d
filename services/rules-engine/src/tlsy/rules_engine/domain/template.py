"""Incident summaries: literal text with `{field}` placeholders; `{{` and `}}` are braces."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tlsy.rules_engine.domain.events import Scalar

AGGREGATE: Final = "aggregate"
_PIECE: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def placeholders(template: str) -> tuple[tuple[str, ...], bool]:
    """The names between braces, in order, and whether every brace is paired."""
    names: list[str] = []
    balanced = True
    for piece in _PIECE.finditer(template):
        if piece.group(1) is not None:
            names.append(piece.group(1))
        elif piece.group(0) in {"{", "}"}:
            balanced = False
    return tuple(names), balanced


def render(template: str, operands: Mapping[str, Scalar | None]) -> str:
    """The summary; a missing value is written `?`, a whole number without its fraction."""
    return _PIECE.sub(_filler(operands), template)


def _filler(operands: Mapping[str, Scalar | None]) -> Callable[[re.Match[str]], str]:
    def fill(piece: re.Match[str]) -> str:
        if piece.group(1) is None:
            return piece.group(0)[0]
        value = operands.get(piece.group(1))
        if value is None:
            return "?"
        if isinstance(value, bool):
            return str(value).lower()
        return f"{value:.6g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)  # noqa: PLR2004

    return fill
