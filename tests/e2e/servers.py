"""Servers of a test's own, that it may take away."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import tempfile
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tlsy.broker import Broker, BrokerSettings
from tlsy.tenancy.local_postgres import ADMINISTRATOR, PORT, THROW_AWAY, LocalPostgres, LocalPostgresError
from tlsy.testkit.postgres import PostgresServer

from .world import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_LOOPBACK: Final = "127.0.0.1"


class KillablePostgres:
    """What it acknowledged is written, though not synced: it outlives its processes, not the machine."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self._local = LocalPostgres(self._data, folder, {**THROW_AWAY, "synchronous_commit": "on"})
        self._local.start()
        self.server = PostgresServer(
            host=str(folder), port=PORT, user=ADMINISTRATOR, password=self._local.password
        )

    def kill(self) -> None:
        """SIGKILL to its first process; the others notice and end."""
        os.kill(self._pid(), signal.SIGKILL)

    async def start(self) -> None:
        """Starts it again; it refuses as long as processes of before are there."""
        await until(self._started)

    def end(self) -> None:
        """Ends it if it runs."""
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(self._pid(), 0)
            self._local.stop()

    def _pid(self) -> int:
        return int((self._data / "postmaster.pid").read_text().split()[0])

    async def _started(self) -> bool:
        try:
            await asyncio.to_thread(self._local.start)
        except LocalPostgresError:
            return False
        return True


@contextmanager
def killable_postgres() -> Iterator[KillablePostgres]:
    """Running; nothing of it is left at the end."""
    folder = Path(tempfile.mkdtemp(prefix="te2e-"))
    try:
        postgres = KillablePostgres(folder)
        try:
            yield postgres
        finally:
            postgres.end()
    finally:
        shutil.rmtree(folder)


class WipeableBroker:
    """An embedded broker that always comes back at the same address, and empty."""

    def __init__(self) -> None:
        with socket.create_server((_LOOPBACK, 0)) as listener:
            self._settings = BrokerSettings(host=_LOOPBACK, port=listener.getsockname()[1])
        self._broker = Broker(self._settings)

    @property
    def address(self) -> str:
        """As clients take it."""
        return f"{_LOOPBACK}:{self._settings.port}"

    async def start(self) -> None:
        """Another one, that knows nothing of the one before."""
        self._broker = Broker(self._settings)
        await self._broker.start()

    async def stop(self) -> None:
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
        await broker.stop()
