"""Guards taken away on purpose, to see that a test notices.

Each is an exact replacement of text that must be there once, so that a guard which moved is noticed too.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlsy.tenancy.database import Connection


class GuardNotFound(LookupError):  # noqa: N818 - read as a fact
    """The text to be taken away is not there exactly once."""

    def __init__(self, where: str, old: str, count: int) -> None:
        super().__init__(f"{where} has {count} times: {old}")


async def alter_function(owner: Connection, function: str, old: str, new: str) -> None:
    """Replace a part of an SQL function's text, e.g. of "tlsy.enter". Raises GuardNotFound."""
    text = await owner.fetchval("select pg_get_functiondef($1::text::regproc)", function)
    await owner.execute(_replaced(function, text, old, new))


def altered_module(name: str, old: str, new: str) -> Any:
    """A module like `name` with a part of its source replaced; the real one is left as it is.

    What imported the real one keeps it, so a test takes from the copy what it wires by hand. Raises
    GuardNotFound.
    """
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(name)
    source = Path(spec.origin).read_text(encoding="utf-8")
    text = _replaced(name, source, old, new)
    copy = ModuleType(f"{name}_altered")
    copy.__file__ = spec.origin
    # Dataclasses look their module up while they are made.
    sys.modules[copy.__name__] = copy
    try:
        exec(compile(text, spec.origin, "exec"), copy.__dict__)  # noqa: S102 - our own source
    finally:
        del sys.modules[copy.__name__]
    return copy


def _replaced(where: str, text: str, old: str, new: str) -> str:
    if (count := text.count(old)) != 1:
        raise GuardNotFound(where, old, count)
    return text.replace(old, new)
