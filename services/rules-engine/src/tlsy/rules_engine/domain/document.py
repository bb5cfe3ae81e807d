"""From bytes or a decoded object to JSON that the validator can trust: text, numbers, depth, duplicates."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

from tlsy.rules_engine.domain.problems import Code, Problem, RuleLimits, pointer_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_LARGEST: Final = 2**63
_CONTAINER_DEPTH: Final = 4  # levels of a rule document around its expressions
#: No member's name is longer. Each value's pointer repeats the keys above it.
_MAX_KEY_CHARS: Final = 64


class _Object(dict[str, Any]):
    """A JSON object that remembers which keys came twice."""

    __slots__ = ("repeated",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.repeated: list[str] = []
        for key, _ in pairs:
            if key in seen:
                self.repeated.append(key)
            seen.add(key)


def decode(document: bytes | object, limits: RuleLimits) -> tuple[Any, list[Problem]]:
    """The JSON value and what is wrong with it as text; with problems the value must not be used."""
    if not isinstance(document, bytes):
        return document, list(_walk(document, limits))
    if len(document) > limits.max_document_bytes:
        message = f"{len(document)} bytes, at most {limits.max_document_bytes}"
        return None, [Problem("", Code.DOCUMENT_TOO_LARGE, message)]
    try:
        value = json.loads(document.decode("utf-8"), object_pairs_hook=_Object)
    except UnicodeDecodeError as error:
        return None, [Problem("", Code.INVALID_UTF8, f"byte {error.start} is not UTF-8")]
    except RecursionError:
        return None, [Problem("", Code.TOO_DEEP, "nested too deeply to be read")]
    except ValueError as error:
        return None, [Problem("", Code.INVALID_JSON, str(error))]
    return value, list(_walk(value, limits))


def _walk(document: object, limits: RuleLimits) -> Iterator[Problem]:
    """Every problem of the raw JSON; iterative, as the depth is not known yet."""
    depth_cap = 2 * limits.max_depth + _CONTAINER_DEPTH
    node_cap = 16 * limits.max_nodes + limits.max_choices
    stack: list[tuple[str, Any, int]] = [("", document, 0)]
    seen = 0
    while stack:
        pointer, node, depth = stack.pop()
        seen += 1
        if seen > node_cap:
            yield Problem("", Code.TOO_MANY_NODES, f"more than {node_cap} JSON values")
            return
        if isinstance(node, dict):
            yield from (
                Problem(pointer_of(pointer, key), Code.DUPLICATE_KEY, f"{key!r} is given more than once")
                for key in getattr(node, "repeated", ())
            )
            yield from _keys(pointer, node)
            children = [(pointer_of(pointer, key), child) for key, child in node.items() if _readable(key)]
        elif isinstance(node, list):
            children = [(pointer_of(pointer, index), child) for index, child in enumerate(node)]
        else:
            yield from _scalar(pointer, node)
            continue
        if depth >= depth_cap and children:
            yield Problem(pointer, Code.TOO_DEEP, f"nested more than {depth_cap} levels")
            continue
        stack.extend((path, child, depth + 1) for path, child in reversed(children))


def _keys(pointer: str, node: dict[Any, Any]) -> Iterator[Problem]:
    for key in node:
        if not isinstance(key, str) or not _clean(key):
            yield Problem(pointer, Code.INVALID_TEXT, "a key holds NUL or text that is not Unicode")
        elif not _readable(key):
            message = f"a key of {len(key)} characters, at most {_MAX_KEY_CHARS}"
            yield Problem(pointer, Code.TOO_LONG, message)


def _readable(key: object) -> bool:
    return isinstance(key, str) and len(key) <= _MAX_KEY_CHARS


def _scalar(pointer: str, node: object) -> Iterator[Problem]:
    if isinstance(node, str):
        if not _clean(node):
            yield Problem(pointer, Code.INVALID_TEXT, "text holds NUL or is not Unicode")
    elif isinstance(node, float):
        if not math.isfinite(node):
            yield Problem(pointer, Code.NOT_FINITE, "numbers are finite", "JSON has no NaN or Infinity")
    elif isinstance(node, int):
        if not -_LARGEST <= node <= _LARGEST:
            yield Problem(pointer, Code.OUT_OF_RANGE, "integers stay within ±2^63")
    elif node is not None:
        yield Problem(pointer, Code.INVALID_JSON, f"{type(node).__name__} is not a JSON value")


def _clean(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)
