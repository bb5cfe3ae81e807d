"""Host names that lead to tenants: `<slug>.<base domain>`, and names of the tenants' own.

Names are compared in their ASCII form (IDNA 2008 after UTS 46 mapping), so that no two spellings of one name
lead to two tenants, and no spelling slips past the check for the platform's own domain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import idna

from tlsy.tenant_registry.domain.errors import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MAX_LENGTH: Final = 253


def ascii_host(text: str) -> str | None:
    """The canonical ASCII form of a host name, without port or final dot; None if it is none.

    An IP address is none, nor is a single label: neither says which tenant is meant.
    """
    bare, _, port = text.strip().partition(":")
    if port and not port.isascii():
        return None
    if port and not port.isdigit():
        return None
    try:
        host = idna.encode(bare.rstrip("."), uts46=True, std3_rules=True).decode("ascii").lower()
    except idna.IDNAError:
        return None
    # The final dot may have been another of IDNA's, which are full stops only once they are mapped.
    host = host.removesuffix(".")
    labels = host.split(".")
    if len(labels) < 2 or len(host) > _MAX_LENGTH or labels[-1].isdigit():  # noqa: PLR2004 - a domain has two labels
        return None
    return host


def slug_of(host: str, base_domain: str) -> str | None:
    """The slug in a canonical host name that is exactly one label below the base domain; else None."""
    label, _, rest = host.partition(".")
    return label if rest == base_domain else None


def host_violations(names: Sequence[str], base_domain: str, field: str) -> tuple[Violation, ...]:
    """All that is wrong with a tenant's own host names; whether another tenant has one is the catalogue's."""
    return tuple(_host_violations(names, base_domain, field))


def _host_violations(names: Sequence[str], base_domain: str, field: str) -> Iterator[Violation]:
    seen: set[str] = set()
    for index, name in enumerate(names):
        path = f"{field}[{index}]"
        host = ascii_host(name)
        if host is None or ":" in name:
            yield Violation(
                path, "HOST_NAME_INVALID", "A host name has two labels or more, by IDNA, and no port."
            )
            continue
        if host == base_domain or host.endswith(f".{base_domain}"):
            yield Violation(path, "HOST_NAME_RESERVED", f"Names below {base_domain} are the platform's.")
        if host in seen:
            yield Violation(path, "HOST_NAME_REPEATED", "This name is there twice.")
        seen.add(host)
