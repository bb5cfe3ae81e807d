"""Ports that nobody else is given."""

from __future__ import annotations

import secrets
import socket
from typing import Final

_TRIES: Final = 100
#: Below those that Linux gives to who dials, or asks for any.
_RANGE: Final = range(15_000, 30_000)


def free_port() -> int:
    """A port of the loopback that is free, and as good as certainly stays so until it is used.

    One that the kernel chose may be given to another process meanwhile, or to the very client that dials it
    while nobody listens, which is then connected to itself.

    Raises:
        OSError: none was found.
    """
    for _ in range(_TRIES):
        port = secrets.choice(_RANGE)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise OSError("no free port was found")
