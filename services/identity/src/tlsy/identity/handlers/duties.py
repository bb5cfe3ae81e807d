"""What the service does by itself: rotates its keys, and makes the first administrator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlsy.identity.handlers.indexing import DATABASE_TROUBLE
from tlsy.identity.ports import PasswordsBusy
from tlsy.rpc.catalog import first_of
from tlsy.rpc.errors import Retryable
from tlsy.runtime.logging import get_logger

if TYPE_CHECKING:
    import asyncio

    from tlsy.identity.handlers.bootstrap import Bootstrap
    from tlsy.identity.handlers.rotate_signing_key import RotateSigningKey
    from tlsy.runtime.clock import Clock

_TEMPORARY: Final = (*DATABASE_TROUBLE, Retryable, PasswordsBusy)
_BOOTSTRAP_RETRY_S: Final = 0.5


class KeepSigningKeys:
    """Every `refresh_s` the ring is read, and where this process works, what is due is done."""

    def __init__(self, rotate: RotateSigningKey, clock: Clock, *, refresh_s: float, works: bool) -> None:
        self._rotate = rotate
        self._clock = clock
        self._refresh_s = refresh_s
        self._works = works
        self._logger = get_logger("identity.signing_keys")

    async def run(self, stopping: asyncio.Event) -> None:
        """Until asked to stop; while the database is away or locked the ring in memory stays in use."""
        while not stopping.is_set():
            try:
                await (self._rotate.by_clock() if self._works else self._rotate.refresh())
            except _TEMPORARY as error:
                self._logger.warning("signing keys not read", error=str(error))
            await first_of(stopping, self._clock, self._refresh_s)


class BootstrapOnce:
    """Tries until the platform tenant is there and its first administrator made, then rests."""

    def __init__(self, bootstrap: Bootstrap, clock: Clock) -> None:
        self._bootstrap = bootstrap
        self._clock = clock
        self._logger = get_logger("identity.bootstrap")

    async def run(self, stopping: asyncio.Event) -> None:
        """Until asked to stop. A file that cannot be written ends the process: nobody could log in."""
        while not stopping.is_set():
            try:
                await self._bootstrap.run()
                await stopping.wait()
            except _TEMPORARY as error:
                self._logger.info("first administrator not made yet", reason=str(error))
                await first_of(stopping, self._clock, _BOOTSTRAP_RETRY_S)
