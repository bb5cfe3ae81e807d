"""What this host can reach: TCP ports, HTTP(S) addresses, and how long certificates still last.

A probe never raises for what it probes: down is a reading, with the reason as a label.
"""

from __future__ import annotations

import asyncio
import http.client
import ssl
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cryptography import x509

from tlsy.agent.domain.readings import Reading, Severity

if TYPE_CHECKING:
    from tlsy.agent.settings import HttpProbe, TcpProbe, TlsProbe

_DAY_S: Final = 86_400
#: Below so many days a certificate is a warning, and an error.
_WARN_DAYS: Final = 30
_ERROR_DAYS: Final = 7


def _up(kind: str, name: str, labels: dict[str, str]) -> Reading:
    return Reading(type=f"probe.{kind}", subject=name, value=1.0, labels=labels)


def _down(
    kind: str, name: str, error: Exception, labels: dict[str, str], value: float | None = 0.0
) -> Reading:
    reason = str(error) or type(error).__name__
    return Reading(
        type=f"probe.{kind}",
        subject=name,
        value=value,
        severity=Severity.ERROR,
        labels={**labels, "error": reason.replace("\0", "")[:200].encode()[:256].decode(errors="ignore")},
    )


async def probe_tcp(probe: TcpProbe) -> Reading:
    """1 if the port accepts a connection in time, else 0."""
    labels = {"target": f"{probe.host}:{probe.port}"}
    try:
        async with asyncio.timeout(probe.timeout_s):
            _, writer = await asyncio.open_connection(probe.host, probe.port)
        writer.close()
    except OSError as error:
        return _down("tcp", probe.name, error, labels)
    return _up("tcp", probe.name, labels)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like any other: whether it is expected, the settings say."""

    def redirect_request(self, *_: object) -> None:
        return None


def _http_status(probe: HttpProbe) -> int:
    context = ssl.create_default_context(cafile=str(probe.ca_file) if probe.ca_file else None)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirect)
    try:
        with opener.open(probe.url, timeout=probe.timeout_s) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


async def probe_http(probe: HttpProbe) -> Reading:
    """1 if the address answers in time with an expected status, else 0."""
    labels = {"target": probe.url[:256]}
    try:
        async with asyncio.timeout(probe.timeout_s + 1):
            status = await asyncio.to_thread(_http_status, probe)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return _down("http", probe.name, error, labels)
    labels["status"] = str(status)
    if status not in probe.expect_status:
        return _down("http", probe.name, ValueError(f"status {status}"), labels)
    return _up("http", probe.name, labels)


async def _certificate(probe: TlsProbe) -> x509.Certificate:
    # Whether the chain is trusted is not the question here: an expired certificate must be readable too.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with asyncio.timeout(probe.timeout_s):
        _, writer = await asyncio.open_connection(
            probe.host, probe.port, ssl=context, server_hostname=probe.host
        )
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
    return x509.load_der_x509_certificate(der)


async def probe_tls(probe: TlsProbe, now: datetime) -> Reading:
    """Days until the server's certificate ends, negative once it has; no value if it could not be had."""
    labels = {"target": f"{probe.host}:{probe.port}"}
    try:
        certificate = await _certificate(probe)
    except (OSError, ValueError) as error:
        return _down("tls", probe.name, error, labels, value=None)
    days = (certificate.not_valid_after_utc - now.astimezone(UTC)).total_seconds() / _DAY_S
    severity = Severity.INFO
    if days < _ERROR_DAYS:
        severity = Severity.ERROR
    elif days < _WARN_DAYS:
        severity = Severity.WARNING
    labels |= {"expires": certificate.not_valid_after_utc.date().isoformat()}
    return Reading(type="probe.tls", subject=probe.name, value=days, severity=severity, labels=labels)
