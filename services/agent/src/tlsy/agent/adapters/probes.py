"""What this host can reach: TCP ports, HTTP(S) addresses, and how long certificates still last.

A probe never raises for what it probes: down is a reading, with the reason as a label. Its deadline begins
when it does and covers all of it. What blocks (names, files of certificates) runs in the background, so that
a probe that hangs holds up no other.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit

from cryptography import x509

from tlsy.agent.adapters.handshake import shown_certificate
from tlsy.agent.domain.readings import Reading, Severity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tlsy.agent.adapters.background import Background
    from tlsy.agent.settings import HttpProbe, TcpProbe, TlsProbe

_DAY_S: Final = 86_400
#: Below so many days a certificate is a warning, and an error.
_WARN_DAYS: Final = 30
_ERROR_DAYS: Final = 7
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] (\d{3})\b")
#: Before the answer itself there may be a few of status 1xx.
_MAX_HEADS: Final = 5
_MAX_HEAD_LINES: Final = 200
_MAX_LINE_KIB: Final = 64
_FIRST_FINAL_STATUS: Final = 200


def _up(kind: str, name: str, labels: dict[str, str]) -> Reading:
    return Reading(type=f"probe.{kind}", subject=name, value=1.0, labels=labels)


def _down(
    kind: str,
    probe: TcpProbe | HttpProbe | TlsProbe,
    error: Exception,
    labels: dict[str, str],
    value: float | None = 0.0,
) -> Reading:
    reason = str(error) or type(error).__name__
    if not str(error) and isinstance(error, TimeoutError):
        reason = f"no answer in {probe.timeout_s:g} s"
    elif not str(error) and isinstance(error, ConnectionError):
        reason = "what answers hung up"
    return Reading(
        type=f"probe.{kind}",
        subject=probe.name,
        value=value,
        severity=Severity.ERROR,
        labels={**labels, "error": reason},
    )


@asynccontextmanager
async def _connected(
    host: str,
    port: int,
    background: Background,
    *,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the first address of a host that takes one; cut in the end, whatever is under way.

    Raises:
        OSError: none takes one, or the host has none.
        ValueError: what is called a host can be none.
    """
    refused: OSError | None = None
    for address in await _addresses(host, port, background):
        try:
            reader, writer = await asyncio.open_connection(
                address,
                port,
                ssl=context,
                server_hostname=host if context is not None else None,
                limit=_MAX_LINE_KIB * 1024,
            )
        except OSError as error:
            refused = error
            continue
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
        return
    raise refused or OSError(f"{host} has no address")


async def _addresses(host: str, port: int, background: Background) -> list[str]:
    try:
        return [str(ip_address(host))]
    except ValueError:
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        return [str(found[4][0]) for found in await background.run(f"lookup {host}:{port}", look_up)]


async def probe_tcp(probe: TcpProbe, background: Background) -> Reading:
    """1 if the port accepts a connection in time, else 0."""
    labels = {"target": f"{probe.host}:{probe.port}"}
    try:
        async with asyncio.timeout(probe.timeout_s), _connected(probe.host, probe.port, background):
            pass
    except (OSError, ValueError) as error:
        return _down("tcp", probe, error, labels)
    return _up("tcp", probe.name, labels)


async def probe_http(probe: HttpProbe, background: Background) -> Reading:
    """1 if the address answers in time with an expected status, else 0.

    A redirect is an answer like any other: whether it is expected, the settings say.
    """
    url = urlsplit(probe.url)
    labels = {"target": f"{url.scheme}://{url.netloc}{url.path}"}
    try:
        async with asyncio.timeout(probe.timeout_s):
            status = await _http_status(probe, url, background)
    except (OSError, ValueError) as error:
        return _down("http", probe, error, labels)
    labels["status"] = str(status)
    if status not in probe.expect_status:
        return _down("http", probe, ValueError(f"status {status}"), labels)
    return _up("http", probe.name, labels)


async def _http_status(probe: HttpProbe, url: SplitResult, background: Background) -> int:
    context, port = None, url.port or 80
    if url.scheme == "https":
        file = str(probe.ca_file) if probe.ca_file is not None else None
        trusted = partial(ssl.create_default_context, cafile=file)
        context, port = await background.run(f"authorities {file}", trusted), url.port or 443
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    request = (
        f"GET {target} HTTP/1.1\r\nHost: {url.netloc}\r\n"
        "User-Agent: tlsy-agent\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    async with _connected(url.hostname or "", port, background, context=context) as (reader, writer):
        writer.write(request.encode("ascii"))
        for _ in range(_MAX_HEADS):
            status = await _head(reader)
            if status >= _FIRST_FINAL_STATUS:
                return status
    raise ValueError("no answer but interim ones")


async def _head(reader: asyncio.StreamReader) -> int:
    """The status of an answer's head; its lines are read to their end, since one that never ends is none."""
    told = _STATUS_LINE.match(await _line(reader))
    if told is None:
        raise ValueError("what answers speaks no HTTP")
    for _ in range(_MAX_HEAD_LINES):
        line = await _line(reader)
        if not line:
            raise ValueError("the answer breaks off in its headers")
        if not line.strip():
            return int(told[1])
    raise ValueError(f"more than {_MAX_HEAD_LINES} lines of headers")


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ValueError as error:
        raise ValueError(f"a line of more than {_MAX_LINE_KIB} KiB of headers") from error


async def probe_tls(probe: TlsProbe, now: datetime, background: Background) -> Reading:
    """Days until the server's certificate ends, negative once it has; no value if it could not be had."""
    labels = {"target": f"{probe.host}:{probe.port}"}
    try:
        async with (
            asyncio.timeout(probe.timeout_s),
            _connected(probe.host, probe.port, background) as (reader, writer),
        ):
            shown = await shown_certificate(reader, writer, probe.host)
        certificate = x509.load_der_x509_certificate(shown)
    except (OSError, ValueError) as error:
        return _down("tls", probe, error, labels, value=None)
    days = (certificate.not_valid_after_utc - now.astimezone(UTC)).total_seconds() / _DAY_S
    severity = Severity.INFO
    if days < _ERROR_DAYS:
        severity = Severity.ERROR
    elif days < _WARN_DAYS:
        severity = Severity.WARNING
    labels |= {"expires": certificate.not_valid_after_utc.date().isoformat()}
    return Reading(type="probe.tls", subject=probe.name, value=days, severity=severity, labels=labels)
