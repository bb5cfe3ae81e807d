"""What listens on the loopback and is no server of the suite: it answers some bytes, drips, or keeps silent.

It is served by threads and has nothing in the event loop of a test. An `asyncio.Server` waits, when it is
closed, for none of its connections (Python 3.11), not even for those it has only just accepted: one left by
a client that dials again and again fails whichever test comes next.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Talk = Callable[[socket.socket], None]
    Carry = Callable[[socket.socket, socket.socket], None]

_CHUNK: Final = 64 * 1024
_LOOK_S: Final = 0.01


@contextmanager
def listening(talk: bytes | Talk = b"", *, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A port; who connects is told these bytes, or talked to by `talk`, and hung up on; with TLS if wanted.

    In the end who is still connected is hung up on, which an OSError or an end of file tells `talk`, and
    every thread has ended.
    """
    with _Listener(say(talk) if isinstance(talk, bytes) else talk, context) as listener:
        accepting = threading.Thread(target=listener.serve_forever, args=(_LOOK_S,))
        accepting.start()
        try:
            yield listener.server_address[1]
        finally:
            listener.shutdown()
            accepting.join()
            listener.hang_up()


def say(answer: bytes) -> Talk:
    """Say this, whatever comes."""
    return lambda connection: connection.sendall(answer)


def keep_silent(connection: socket.socket) -> None:
    """Take what comes until the other end hangs up, or the block ends."""
    while connection.recv(_CHUNK):
        pass


def carry_both_ways(client: socket.socket, server: socket.socket, *, forth: Carry, back: Carry) -> None:
    """Run `forth(client, server)`, and `back(server, client)` in a thread, until both have ended.

    Where one ends, its target is told that nothing more comes; when `forth` has, all is over.
    """

    def carry(way: Carry, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            way(source, sink)
            sink.shutdown(socket.SHUT_WR)

    returning = threading.Thread(target=carry, args=(back, server, client))
    returning.start()
    carry(forth, client, server)
    with contextlib.suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)
    returning.join()


class _Listener(socketserver.ThreadingTCPServer):
    request_queue_size = 128

    def __init__(self, talk: Talk, context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self._talk = talk
        self._context = context
        self._connections: set[socket.socket] = set()
        self._closing = threading.Lock()

    def get_request(self) -> tuple[socket.socket, object]:
        connection, peer = super().get_request()
        if self._context is not None:
            connection = self._context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        self._connections.add(connection)
        return connection, peer

    def finish_request(self, connection: socket.socket, peer: object) -> None:  # type: ignore[override]  # TCP has no other
        del peer
        with contextlib.suppress(OSError):
            if isinstance(connection, ssl.SSLSocket):
                connection.do_handshake()
            self._talk(connection)
            # Closed with something unread it would be reset, and what was said perhaps not heard.
            connection.shutdown(socket.SHUT_WR)
            keep_silent(connection)

    def close_request(self, connection: socket.socket) -> None:  # type: ignore[override]  # TCP has no other
        with self._closing:
            self._connections.discard(connection)
            connection.close()

    def hang_up(self) -> None:
        with self._closing:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
