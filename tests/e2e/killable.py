"""The suite as one real process on a data directory of its own, to be killed and started again."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from examples.demo.processes import Running
from tlsy.embedded.settings import COMMON_DATABASE
from tlsy.runtime.environment import CONTROL_DATABASE
from tlsy.tenancy.cluster import MIGRATOR
from tlsy.tenancy.database import ClusterAddress
from tlsy.tenancy.local_postgres import PORT

from .world import Databases, until

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

    from .world import World

_STOP_S: Final = 30.0


class KillableSuite:
    """`python -m tlsy.embedded`; its sockets are below `folder` too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._process: Process | None = None

    async def start(self) -> None:
        """Starts it; returns at once."""
        with (self.folder / "suite.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tlsy.embedded", "--data-dir", str(self.data)),
                env={**os.environ, "TMPDIR": str(self.folder), "TLSY_EMBEDDED_ARGON2_MEMORY_KIB": "64"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def ready(self) -> tuple[Running, Databases]:
        """Where it listens, once it says so."""
        told = await until(self._told)
        running = Running(
            services=told["services"],
            brokers=tuple(told["brokers"]),
            postgres=told["postgres"],
            api_key_file=Path(told["api_key_file"]),
        )
        password = (self.data / "postgres.password").read_text()
        server = ClusterAddress(host=running.postgres, port=PORT, user=MIGRATOR, password=password)
        return running, Databases(server, CONTROL_DATABASE, COMMON_DATABASE)

    async def back(self, world: World) -> None:
        """Returns once it is ready, and the world knows where."""
        world.moved(*await self.ready())

    async def kill(self) -> None:
        """SIGKILL: what it has in memory is gone; its database server, a process apart, is left behind."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """Ends it in order; what is left of one that was killed is ended too."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _STOP_S)
        if self._process is not None and self._process.returncode is None:
            await self.kill()
        with suppress(FileNotFoundError, ProcessLookupError):
            postmaster = int((self.data / "postgres" / "postmaster.pid").read_text().split()[0])
            os.kill(postmaster, signal.SIGQUIT)
            await until(lambda: _is_gone(postmaster))

    def socket_folders(self) -> int:
        """How many there are, of this start and of those that were killed."""
        return len(list(self.folder.glob("tlsy-*")))

    async def _told(self) -> dict | None:
        assert self._process is not None
        assert self._process.returncode is None, (self.folder / "suite.log").read_text()[-3000:]
        try:
            told = json.loads((self.data / "run.json").read_text())
        except FileNotFoundError:
            return None
        # Of one that was killed the file is still there.
        return told if told["pid"] == self._process.pid else None


@asynccontextmanager
async def killable_suite() -> AsyncIterator[KillableSuite]:
    """One that was not started; nothing of it is left at the end."""
    folder = _private_folder()
    suite = KillableSuite(folder)
    try:
        yield suite
    finally:
        await suite.stop()
        shutil.rmtree(folder)


def _private_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="te2e-"))
    # PostgreSQL, which does not run as root, must get to its own folder below.
    folder.chmod(0o711)
    return folder


async def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
