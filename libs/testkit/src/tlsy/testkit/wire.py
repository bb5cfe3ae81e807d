"""What goes over the wire to PostgreSQL, counted between client and server, or held back."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tlsy.tenancy.database import ClusterAddress

_CHUNK: Final = 64 * 1024
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
    speaks: asyncio.Event = field(default_factory=asyncio.Event)

    def clear(self) -> None:
        """Begin to count anew."""
        self.trips = 0
        self.texts.clear()

    def note(self, kind: bytes, body: bytes) -> None:
        """One message of a client."""
        if kind in (_QUERY, _SYNC):
            self.trips += 1
        if kind == _QUERY:
            self.texts.append(body.rstrip(b"\0").decode())


@asynccontextmanager
async def counted(address: ClusterAddress) -> AsyncIterator[Wire]:
    """A way to the same server that counts; without TLS."""
    with tempfile.TemporaryDirectory(prefix="tlsy-wire-") as folder:
        wire = Wire(replace(address, host=folder))
        wire.speaks.set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if address.host.startswith("/"):
                path = f"{address.host}/.s.PGSQL.{address.port}"
                from_server, to_server = await asyncio.open_unix_connection(path)
            else:
                from_server, to_server = await asyncio.open_connection(address.host, address.port)
            back = asyncio.ensure_future(_copy(from_server, writer, wire))
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await _forward(reader, to_server, wire)
            to_server.close()
            await back
            writer.close()

        server = await asyncio.start_unix_server(serve, f"{folder}/.s.PGSQL.{address.port}")
        try:
            yield wire
        finally:
            wire.speaks.set()
            server.close()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: Wire) -> None:
    """Message by message; the first has no type."""
    kind = b""
    while True:
        size = await reader.readexactly(4)
        body = await reader.readexactly(int.from_bytes(size) - 4)
        await wire.speaks.wait()
        writer.write(kind + size + body)
        wire.note(kind, body)
        kind = await reader.readexactly(1)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: Wire) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            await wire.speaks.wait()
            writer.write(data)
