"""The certificate that a server shows, whether or not it takes this client.

Up to TLS 1.2 a server that insists on a client's certificate refuses the handshake, after it has sent its
own: unencrypted, and so told here all the same. (In TLS 1.3 the client's part is over by then.)
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

_CHUNK: Final = 65_536
#: More of a handshake is not kept: OpenSSL takes chains of up to 100 KiB.
_MAX_HEARD: Final = 262_144
#: The header of a record is its kind, its version and its size; that of a message its kind and its size.
_RECORD_HEADER: Final = 5
_MESSAGE_HEADER: Final = 4
_HANDSHAKE: Final = 22
_CERTIFICATE: Final = 11


async def shown_certificate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> bytes:
    """The server's certificate (DER); whether its chain is trusted, or it is of this host, is not asked.

    Raises:
        OSError: it shows none.
        ValueError: what is called a host can be none.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=host)
    heard = bytearray()
    try:
        while not _is_over(tls):
            writer.write(outgoing.read())
            data = await reader.read(_CHUNK)
            if not data:
                raise ConnectionResetError
            heard += data[: _MAX_HEARD - len(heard)]
            incoming.write(data)
    except OSError:
        shown = _in_clear(bytes(heard))
        if shown is None:
            raise
        return shown
    writer.write(outgoing.read())
    shown = tls.getpeercert(binary_form=True)
    if shown is None:
        raise ssl.SSLError("the server shows no certificate")
    return shown


def _is_over(tls: ssl.SSLObject) -> bool:
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _in_clear(heard: bytes) -> bytes | None:
    """The first certificate in what a server said before it encrypted; None if there is none whole."""
    parts, at = [], 0
    while heard[at : at + 1] == bytes([_HANDSHAKE]):
        begin = at + _RECORD_HEADER
        at = begin + int.from_bytes(heard[at + 3 : begin], "big")
        parts.append(heard[begin:at])
    said, at = b"".join(parts), 0
    while at < len(said):
        begin = at + _MESSAGE_HEADER
        end = begin + int.from_bytes(said[at + 1 : begin], "big")
        if said[at] == _CERTIFICATE:
            # The size of the chain, that of its first certificate, and this.
            size = int.from_bytes(said[begin + 3 : begin + 6], "big")
            first = said[begin + 6 : begin + 6 + size]
            return first if first and len(first) == size else None
        at = end
    return None
