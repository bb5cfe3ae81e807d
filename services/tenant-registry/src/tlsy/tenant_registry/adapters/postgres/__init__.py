"""The catalogue's tables in the control database; one statement per .sql file."""

from __future__ import annotations

from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_FRAGMENTS: Final = ("tenant_columns", "cluster_columns", "operation_columns")


def load_statements() -> Mapping[str, str]:
    """Every statement by the name of its file, with the column lists filled in."""
    texts = {
        entry.name.removesuffix(".sql"): entry.read_text(encoding="utf-8")
        for entry in files(__package__).iterdir()
        if entry.name.endswith(".sql")
    }
    fragments = {name: texts.pop(name).strip() for name in _FRAGMENTS}
    for fragment, columns in fragments.items():
        texts = {name: text.replace(f"__{fragment}__", columns) for name, text in texts.items()}
    return MappingProxyType(texts)
