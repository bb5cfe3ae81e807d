"""What goes over the wire to PostgreSQL, counted between client and server, or held back."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from tlsy.testkit.listening import carry_both_ways, listening

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsy.tenancy.database import ClusterAddress

_CHUNK: Final = 64 * 1024
_SIZE_BYTES: Final = 4
_HEAD_BYTES: Final = 1 + _SIZE_BYTES
_QUERY: Final = b"Q"
_SYNC: Final = b"S"


@dataclass(slots=True)
class Wire:
    """Everything that clients asked since it was last cleared.

    Attributes:
        address: through which it is counted.
        trips: waits of a client for the server; each ends with one ReadyForQuery.
        texts: of the simple queries among them.
        speaks: while it is not set nothing passes in either direction, as when the server lost its power.
    """

    address: ClusterAddress
    trips: int = 0
    texts: list[str] = field(default_factory=list)
    speaks: threading.Event = field(default_factory=threading.Event)

    def clear(self) -> None:
        """Begin to count anew."""
        self.trips = 0
        self.texts.clear()

    def note(self, kind: bytes, message: bytes) -> None:
        """One message of a client."""
        if kind in (_QUERY, _SYNC):
            self.trips += 1
        if kind == _QUERY:
            self.texts.append(message[_HEAD_BYTES:].rstrip(b"\0").decode())


@contextmanager
def counted(address: ClusterAddress) -> Iterator[Wire]:
    """A way to the same server that counts; without TLS."""

    def serve(client: socket.socket) -> None:
        with _connection(address) as server:
            carry_both_ways(client, server, forth=forth, back=back)

    def forth(client: socket.socket, server: socket.socket) -> None:
        for kind, message in _messages(client):
            wire.speaks.wait()
            wire.note(kind, message)
            server.sendall(message)

    def back(server: socket.socket, client: socket.socket) -> None:
        while data := server.recv(_CHUNK):
            wire.speaks.wait()
            client.sendall(data)

    with listening(serve) as port:
        wire = Wire(replace(address, host="127.0.0.1", port=port))
        wire.speaks.set()
        try:
            yield wire
        finally:
            wire.speaks.set()


def _connection(address: ClusterAddress) -> socket.socket:
    if not address.host.startswith("/"):
        return socket.create_connection((address.host, address.port))
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(f"{address.host}/.s.PGSQL.{address.port}")
    return connection


def _messages(client: socket.socket) -> Iterator[tuple[bytes, bytes]]:
    """Each with its type; the first has none."""
    kind = b""
    with client.makefile("rb") as stream:
        while len(size := stream.read(_SIZE_BYTES)) == _SIZE_BYTES:
            body = stream.read(int.from_bytes(size) - _SIZE_BYTES)
            yield kind, kind + size + body
            kind = stream.read(1)
