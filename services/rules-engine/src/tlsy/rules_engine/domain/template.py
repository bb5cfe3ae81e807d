"""Incident summaries: literal text with `{field}` placeholders; `{{` and `}}` are braces."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tlsy.rules_engine.domain.events import Scalar

AGGREGATE: Final = "aggregate"
MAX_SUMMARY_BYTES: Final = 1_024
MAX_OPERAND_CHARS: Final = 256
#: From here on six digits would be written with an exponent, as it is rounded.
_EXPONENT_FROM: Final = 999_999.5
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
    """The summary, cut where it is too long; a missing value is `?`, a whole number has no fraction."""
    text = _PIECE.sub(_filler(operands), template)
    encoded = text.encode()
    if len(encoded) <= MAX_SUMMARY_BYTES:
        return text
    return encoded[: MAX_SUMMARY_BYTES - len("…".encode())].decode(errors="ignore") + "…"


def shortened(value: Scalar | None) -> Scalar | None:
    """A value of an event as incidents report it: a text is cut."""
    if not isinstance(value, str) or len(value) <= MAX_OPERAND_CHARS:
        return value
    return value[: MAX_OPERAND_CHARS - 1] + "…"


def _filler(operands: Mapping[str, Scalar | None]) -> Callable[[re.Match[str]], str]:
    def fill(piece: re.Match[str]) -> str:
        if piece.group(1) is None:
            return piece.group(0)[0]
        value = operands.get(piece.group(1))
        if value is None:
            return "?"
        if isinstance(value, bool):
            return str(value).lower()
        if not isinstance(value, float):
            return value
        if abs(value) < _EXPONENT_FROM:
            return f"{value:.6g}"
        return str(int(value)) if value.is_integer() else str(value)

    return fill
