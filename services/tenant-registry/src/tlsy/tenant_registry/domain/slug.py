"""Slugs: the tenants' names in resource names, sub-domains and logs.

Two slugs that a person could take for each other never exist together: each has a *skeleton*, the same for
all its look-alikes, and the catalogue keeps skeletons unique. The mapping of digits is injective, so that
`shop-17` and `shop-71` stay two names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tlsy.tenant_registry.domain.errors import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MIN_LENGTH: Final = 3
MAX_LENGTH: Final = 40

_CHARACTERS: Final = re.compile(r"[a-z0-9-]*")
_LOOK_ALIKES: Final[Mapping[int, int]] = str.maketrans("0123456789i", "olzeasgtbql")
_HYPHENS: Final = re.compile(r"-+")

_RESERVED: Final = frozenset(
    {
        "platform", "about", "account", "accounts", "admin", "administrator", "agent", "agents", "api",
        "app", "apps", "assets", "audit", "auth", "billing", "blog", "broker", "cdn", "cluster", "clusters",
        "console", "control", "countries", "country", "dashboard", "default", "demo", "dev", "docs", "edge",
        "events", "example", "files", "ftp", "gateway", "global", "grafana", "grpc", "help", "host",
        "identity", "imap", "incidents", "info", "ingest", "ingestion", "internal", "invalid", "kafka",
        "local", "localhost", "login", "logout", "mail", "metrics", "monitoring", "null", "oauth", "oidc",
        "operations", "operator", "portal", "postgres", "postmaster", "preprod", "prod", "production",
        "prometheus", "public", "registry", "reporting", "root", "rules", "saml", "search", "security",
        "self", "service", "services", "shared", "signin", "signup", "smtp", "sso", "staging", "static",
        "status", "support", "system", "tenant", "tenants", "test", "tlsy", "undefined", "user", "users",
        "webmail", "webmaster", "well-known", "www",
    }
)  # fmt: skip


def skeleton(slug: str) -> str:
    """What `slug` looks like: equal for two slugs that are easily taken for each other.

    Digits and `i` become the letter that they resemble, the pairs `rn`, `vv` and `cl` the letter that they
    make together, and runs of hyphens one hyphen.
    """
    letters = slug.translate(_LOOK_ALIKES)
    for pair, letter in (("rn", "m"), ("vv", "w"), ("cl", "d")):
        letters = letters.replace(pair, letter)
    return _HYPHENS.sub("-", letters)


def may_be_slug(text: str) -> bool:
    """Whether it is worth while to look for a tenant of this slug."""
    return 0 < len(text) <= MAX_LENGTH and _CHARACTERS.fullmatch(text) is not None


def slug_violations(slug: str, field: str) -> tuple[Violation, ...]:
    """All that is wrong with `slug` itself; whether it is taken is the catalogue's to say."""
    return tuple(_slug_violations(slug, field))


def _slug_violations(slug: str, field: str) -> Iterator[Violation]:
    if len(slug) < MIN_LENGTH:
        yield Violation(field, "SLUG_TOO_SHORT", f"A slug has at least {MIN_LENGTH} characters.")
    if len(slug) > MAX_LENGTH:
        yield Violation(field, "SLUG_TOO_LONG", f"A slug has at most {MAX_LENGTH} characters.")
    if not _CHARACTERS.fullmatch(slug):
        yield Violation(field, "SLUG_CHARACTERS", "A slug is made of a-z, 0-9 and inner hyphens.")
        return
    if slug and not slug[0].isalpha():
        yield Violation(field, "SLUG_START", "A slug starts with a letter.")
    if slug.endswith("-") or slug[2:4] == "--":
        yield Violation(
            field, "SLUG_HYPHENS", "A slug has no hyphen at its end, nor at its 3rd and 4th place."
        )
    if skeleton(slug) in {skeleton(word) for word in _RESERVED}:
        yield Violation(
            field, "SLUG_RESERVED", "This slug, or one that looks like it, is kept for the platform."
        )
