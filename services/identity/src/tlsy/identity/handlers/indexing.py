"""The index of revocations that services read when they start."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import asyncpg

from tlsy.runtime.logging import get_logger
from tlsy.tenancy.context import PLATFORM
from tlsy.tenancy.errors import TenancyError

if TYPE_CHECKING:
    from tlsy.identity.domain.revocations import IndexedRevocation
    from tlsy.identity.ports import RevocationIndex
    from tlsy.tenancy.unit_of_work import Tenancy

#: A database that is away, slow or locked. Of OSErrors only TimeoutError: others are a file's, and stay.
DATABASE_TROUBLE: Final = (TenancyError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)
_PATIENCE_S: Final = 2.0


class IndexRevocations:
    """Written to the control database in a transaction of its own; in any order, the later stays."""

    def __init__(self, tenancy: Tenancy, index: RevocationIndex) -> None:
        self._tenancy = tenancy
        self._index = index
        self._logger = get_logger("identity.revocations")

    async def put(self, revocation: IndexedRevocation) -> None:
        """Store it."""
        async with self._tenancy.control(PLATFORM, write=True) as tx:
            await self._index.put(tx, revocation)

    async def put_if_possible(self, revocation: IndexedRevocation) -> None:
        """Store it, unless the control database is away: a revocation does not fail for that.

        Its event reaches the services that run, and the index when it is consumed.
        """
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self.put(revocation)
        except DATABASE_TROUBLE as error:
            self._logger.warning("revocation not in the index yet", error=type(error).__name__)
