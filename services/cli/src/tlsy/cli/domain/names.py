"""Resource names from what people type, and key=value pairs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tlsy.cli.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


_ADDRESS: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:,\[\]]+)(?::(\d{1,5}))?")
_MAX_PORT: Final = 65_535


def tenant_name(text: str) -> str:
    """The whole name, "tenants/acme", of "acme" or of itself."""
    return text if text.startswith("tenants/") else f"tenants/{text}"


def slug(name: str) -> str:
    """The slug in a name: "acme" of "tenants/acme/rules/a"."""
    return name.removeprefix("tenants/").split("/")[0]


def country_name(text: str) -> str:
    """The whole name, "countries/fr", of "fr", "FR" or of itself."""
    return text if text.startswith("countries/") else f"countries/{text.lower()}"


def cluster_name(text: str) -> str:
    """The whole name, "clusters/eu-1", of "eu-1" or of itself."""
    return text if text.startswith("clusters/") else f"clusters/{text}"


def within(parent: str, collection: str, text: str) -> str:
    """The name of something of a tenant: whole as it is given, or an id, or "users/ID", made whole."""
    text = text.removeprefix(f"{collection}/")
    return text if "/" in text else f"{parent}/{collection}/{text}"


def broker_addresses(text: str) -> str:
    """The same, if it is "host:port", or several of these with commas; Kafka's port may be left out.

    What stands behind a "?" says how one gets in, and is not looked at.

    Raises:
        UsageError: it is not.
    """
    for address in text.partition("?")[0].split(","):
        found = _ADDRESS.fullmatch(address.strip())
        if found is None or not 0 < int(found[1] or 1) <= _MAX_PORT:
            raise UsageError(f"{address!r} is no address.", "Write --brokers as host:port,host:port.")
    return text


def pairs(texts: Sequence[str], what: str) -> dict[str, str]:
    """["a=b", "c=d"] as a mapping.

    Raises:
        UsageError: one has no "=", or a key is there twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"{text!r} is not a {what}.", "Write it as key=value.")
        if key in found:
            raise UsageError(f"{what} {key!r} is given twice.", "Give each key once.")
        found[key] = value
    return found
