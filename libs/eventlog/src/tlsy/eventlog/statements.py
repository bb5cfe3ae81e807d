"""The SQL of this library, read from its `.sql` files."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def statements(package: str) -> Mapping[str, str]:
    """File name without suffix to text, for the service of that package name (`rules_engine`)."""
    folder = files("tlsy.eventlog") / "sql"
    return {
        file.name.removesuffix(".sql"): file.read_text("utf-8").replace("__service__", package)
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    }
