"""Revocations of all tenants, for services that start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.tenancy.context import PLATFORM

if TYPE_CHECKING:
    from uuid import UUID

    from tlsy.identity.domain.revocations import IndexedRevocation
    from tlsy.identity.ports import RevocationIndex
    from tlsy.runtime.clock import Clock
    from tlsy.tenancy.unit_of_work import Tenancy


class ListRevocations:
    """From the index: what is revoked is there before its caller is answered."""

    def __init__(self, tenancy: Tenancy, index: RevocationIndex, clock: Clock) -> None:
        self._tenancy = tenancy
        self._index = index
        self._clock = clock

    async def run(self, after: tuple[UUID, str], size: int) -> tuple[list[IndexedRevocation], bool]:
        """At most `size` behind `after` that still matter to a token, and whether there are more."""
        async with self._tenancy.control(PLATFORM, write=False) as tx:
            found = await self._index.page(tx, after, self._clock.now(), size + 1)
        return found[:size], len(found) > size
