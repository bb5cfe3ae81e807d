"""A PostgreSQL server for tests: a local process of one's own, or one that is running already.

Its data are in a fresh directory, in memory where there is enough of it, and nothing is synced. A watcher
process ends the server and removes the directory when the tests are gone, however they went.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, unquote, urlsplit

from tlsy.tenancy.database import ClusterAddress
from tlsy.tenancy.local_postgres import ADMINISTRATOR, PORT, THROW_AWAY, LocalPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_STOP_TIMEOUT_S: Final = 60
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a fresh private directory is made inside
_MEMORY_NEEDED_BYTES: Final = 4 * 2**30
#: Ends the server once its standard input closes, which it does when the process that holds it dies.
_WATCHER: Final = """
import os, shutil, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.stdin.buffer.read()
folder = sys.argv[1]
lock = folder + "/data/postmaster.pid"
try:
    os.kill(int(open(lock).readline()), signal.SIGQUIT)
    for _ in range(400):
        os.stat(lock)
        time.sleep(0.01)
except (OSError, ValueError):
    pass
shutil.rmtree(folder, ignore_errors=True)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresServer:
    """A running server and its administrator. `password` is also every suite role's in tests."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)

    def address(self, role: str | None = None) -> ClusterAddress:
        """How to reach it as a role; as the administrator without one."""
        return ClusterAddress(
            host=self.host, port=self.port, user=self.user if role is None else role, password=self.password
        )

    @classmethod
    def from_dsn(cls, dsn: str) -> PostgresServer:
        """A server that is already running; the user of the DSN must be a superuser.

        `postgresql://user:password@host:port/`, or `postgresql://user:password@/?host=<folder of a socket>`.
        """
        parts = urlsplit(dsn)
        socket = parse_qs(parts.query).get("host", ["127.0.0.1"])
        return cls(
            host=parts.hostname or socket[0],
            port=parts.port or PORT,
            user=unquote(parts.username or ADMINISTRATOR),
            password=unquote(parts.password or ""),
        )


@contextlib.contextmanager
def running_postgres(
    settings: Mapping[str, str] = THROW_AWAY, *, below: Path | None = None
) -> Iterator[PostgresServer]:
    """Start a server of one's own; stop and remove it at the end, also if this process is killed.

    Its data are in `data` below the folder of its socket, which is the server's `host`; that folder is below
    `below`, for who measures a disk.
    """
    folder = Path(tempfile.mkdtemp(prefix="tlsy-pg-", dir=below or _fastest_folder()))
    watcher = subprocess.Popen(  # noqa: S603 - our own text, run by this interpreter
        [sys.executable, "-I", "-c", _WATCHER, str(folder)], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        server = LocalPostgres(folder / "data", folder, settings)
        server.start()
        yield PostgresServer(host=str(folder), port=PORT, user=ADMINISTRATOR, password=server.password)
    finally:
        if watcher.stdin is not None:
            watcher.stdin.close()
        watcher.wait(_STOP_TIMEOUT_S)


def _fastest_folder() -> Path | None:
    """Memory, where there is plenty: copying a database is creating a thousand small files."""
    usable = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK | os.X_OK)
    return _MEMORY if usable and shutil.disk_usage(_MEMORY).free >= _MEMORY_NEEDED_BYTES else None
