"""PgBouncer in transaction mode in front of a server, as a local process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tlsy.tenancy.database import ClusterAddress
from tlsy.testkit.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tlsy.testkit.postgres import PostgresServer

_START_S: Final = 60.0


@contextmanager
def running_pooler(
    server: PostgresServer, folder: Path, roles: Sequence[str], *, connections: int
) -> Iterator[Mapping[str, ClusterAddress]]:
    """Role to its address; each has so many connections to each database, which its clients take turns on."""
    program = shutil.which("pgbouncer")
    if program is None:
        raise FileNotFoundError("'pgbouncer' is not on the PATH: install it (Debian: pgbouncer)")
    port = free_port()
    (folder / "users").write_text("".join(f'"{role}" "{server.password}"\n' for role in roles))
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={server.host} port={server.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = plain\nauth_file = {folder}/users\npool_mode = transaction\n"
        f"default_pool_size = {connections}\nmin_pool_size = 0\nreserve_pool_size = 0\n"
    )
    command = [program, "--quiet", str(folder / "pgbouncer.ini")]
    if os.geteuid() == 0:
        # It refuses to be root; whoever runs the server can reach its socket.
        for path in (folder, *folder.parents[:3], *folder.iterdir()):
            path.chmod(0o755)
        command += ["--user", Path(server.host).owner()]
    process = subprocess.Popen(  # noqa: S603 - our own file, read by the program that was looked up
        command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(port)
        yield {
            role: ClusterAddress(
                host="127.0.0.1", port=port, user=role, password=server.password, pooled=True
            )
            for role in roles
        }
    finally:
        process.terminate()
        process.wait(_START_S)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
