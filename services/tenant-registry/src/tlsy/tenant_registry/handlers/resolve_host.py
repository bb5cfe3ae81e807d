"""Finds the tenant that a host name leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.rpc.errors import InvalidArgument, NotFound, Violation
from tlsy.tenant_registry.domain.hosts import ascii_host, slug_of

if TYPE_CHECKING:
    from tlsy.rpc.call import Call
    from tlsy.runtime.ids import TenantId
    from tlsy.tenant_registry.handlers.catalogue import Catalogue


class ResolveHost:
    """By `<slug>.<base domain>`, or by one of the tenants' own host names; any IDNA spelling of it."""

    def __init__(self, catalogue: Catalogue, base_domain: str) -> None:
        self._catalogue = catalogue
        self._base_domain = base_domain

    async def run(self, call: Call, host_name: str) -> tuple[TenantId, str]:
        """Id and slug. Raises InvalidArgument: HOST_NAME_INVALID; NotFound: HOST_UNKNOWN."""
        host = ascii_host(host_name)
        if host is None:
            text = "a host name has two labels or more, by IDNA"
            raise InvalidArgument(violations=[Violation("host_name", "HOST_NAME_INVALID", text)])
        async with self._catalogue.reading(call) as tx:
            found = await self._catalogue.tenants.find_host(tx, slug_of(host, self._base_domain), host)
        if found is None:
            raise NotFound("HOST_UNKNOWN", "No tenant has this host name.")
        return found
