"""The tenant-plane tables of the rules engine: one .sql file per statement, one store per aggregate."""

from __future__ import annotations

from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def read_statements() -> Mapping[str, str]:
    """Every statement of this package by the name of its file."""
    files = resources.files(__package__)
    return MappingProxyType(
        {
            file.name.removesuffix(".sql"): file.read_text(encoding="utf-8")
            for file in files.iterdir()
            if file.name.endswith(".sql")
        }
    )
