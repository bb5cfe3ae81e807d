"""Servers of a test's own, that it may take away."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tlsy.broker import Broker, BrokerSettings
from tlsy.tenancy.local_postgres import THROW_AWAY, LocalPostgres, LocalPostgresError
from tlsy.testkit.ports import free_port
from tlsy.testkit.postgres import running_postgres

from .world import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from tlsy.testkit.postgres import PostgresServer

_LOOPBACK: Final = "127.0.0.1"


#: What was acknowledged is written, though not synced: it outlives its processes, not the machine.
_SETTINGS: Final[Mapping[str, str]] = {**THROW_AWAY, "synchronous_commit": "on"}


class KillablePostgres:
    """A running server."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._data = Path(server.host) / "data"
        self._local = LocalPostgres(self._data, Path(server.host), _SETTINGS)

    async def kill(self) -> None:
        """SIGKILL to its first process; the others notice and end."""
        os.kill(int((self._data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    async def start(self) -> None:
        """Starts it again; it refuses as long as processes of before are there."""
        await until(self._started)

    async def _started(self) -> bool:
        try:
            await asyncio.to_thread(self._local.start)
        except LocalPostgresError:
            return False
        return True


@contextmanager
def killable_postgres() -> Iterator[KillablePostgres]:
    """Nothing of it is left at the end."""
    with running_postgres(_SETTINGS) as server:
        yield KillablePostgres(server)


class WipeableBroker:
    """An embedded broker that always comes back at the same address, and empty."""

    def __init__(self) -> None:
        self._settings = BrokerSettings(host=_LOOPBACK, port=free_port())
        self._broker = Broker(self._settings)

    @property
    def address(self) -> str:
        """As clients take it."""
        return f"{_LOOPBACK}:{self._settings.port}"

    async def start(self) -> None:
        """Another one, that knows nothing of the one before."""
        self._broker = Broker(self._settings)
        await self._broker.start()

    async def kill(self) -> None:
        """Everything that it held is gone."""
        await self._broker.stop()


@asynccontextmanager
async def wipeable_broker() -> AsyncIterator[WipeableBroker]:
    """Running."""
    broker = WipeableBroker()
    await broker.start()
    try:
        yield broker
    finally:
        await broker.kill()
