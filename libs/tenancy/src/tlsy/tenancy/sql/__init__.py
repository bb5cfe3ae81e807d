"""The SQL of this package as text: library DDL in numbered files, the unit of work's statements by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

_PACKAGE_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")


def text(path: str, package: str = "") -> str:
    """A file of this folder; `__service__` in it becomes the service's package name."""
    source = files(__name__).joinpath(path).read_text(encoding="utf-8")
    if "__service__" not in source:
        return source
    if not _PACKAGE_NAME.fullmatch(package):
        raise ValueError(f"not a package name: {package!r}")
    return source.replace("__service__", package)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatements:
    """What the unit of work sends on behalf of one service."""

    append: str
    append_and_wake: str
    first_delivery: str
    claim_request: str
    stored_response: str
    store_response: str

    @classmethod
    def load(cls, package: str) -> ServiceStatements:
        """The statements over the tables in the service's schema."""
        return cls(
            append=text("statements/append.sql", package),
            append_and_wake=text("statements/append_and_wake.sql", package),
            first_delivery=text("statements/first_delivery.sql", package),
            claim_request=text("statements/claim_request.sql", package),
            stored_response=text("statements/stored_response.sql", package),
            store_response=text("statements/store_response.sql", package),
        )
