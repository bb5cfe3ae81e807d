from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tlsy.agent.adapters.probes import probe_http, probe_tcp, probe_tls
from tlsy.agent.domain.readings import Severity
from tlsy.agent.settings import HttpProbe, TcpProbe, TlsProbe

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@asynccontextmanager
async def listening(answer: bytes = b"", context: ssl.SSLContext | None = None):
    async def serve(reader, writer):
        if answer:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
def tls_context(tmp_path):
    """A server's context with a certificate that ends in so many days."""

    def make(days: float) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(NOW - timedelta(days=400))
            .not_valid_after(NOW + timedelta(days=days))
            .sign(key, hashes.SHA256())
        )
        pem = tmp_path / "server.pem"
        pem.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        return context

    return make


async def test_an_open_port_is_up_and_a_closed_one_is_down_with_the_reason():
    async with listening() as port:
        up = await probe_tcp(TcpProbe(name="web", host="127.0.0.1", port=port))
    down = await probe_tcp(TcpProbe(name="web", host="127.0.0.1", port=port))
    assert (up.value, up.severity, "error" in up.labels) == (1.0, Severity.INFO, False)
    assert (down.value, down.severity, "error" in down.labels) == (0.0, Severity.ERROR, True)


@pytest.mark.parametrize(("expected", "value"), [((200,), 0.0), ((302,), 1.0)])
async def test_an_http_status_is_up_only_if_it_is_expected(expected, value):
    answer = b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"
    async with listening(answer) as port:
        reading = await probe_http(
            HttpProbe(name="web", url=f"http://127.0.0.1:{port}/", expect_status=expected)
        )
    assert (reading.value, reading.labels["status"]) == (value, "302")


async def test_something_that_speaks_no_http_is_down():
    async with listening(b"SSH-2.0-OpenSSH\r\n") as port:
        reading = await probe_http(HttpProbe(name="web", url=f"http://127.0.0.1:{port}/"))
    assert reading.value == 0.0


@pytest.mark.parametrize(
    ("days", "severity"),
    [(90, Severity.INFO), (20, Severity.WARNING), (3, Severity.ERROR), (-2, Severity.ERROR)],
)
async def test_a_certificate_is_told_in_days_also_when_it_has_ended(tls_context, days, severity):
    async with listening(context=tls_context(days)) as port:
        reading = await probe_tls(TlsProbe(name="web", host="127.0.0.1", port=port), NOW)
    assert reading.value == pytest.approx(days)
    assert reading.severity is severity


async def test_a_certificate_that_cannot_be_had_has_no_value():
    async with listening() as port:
        pass
    reading = await probe_tls(TlsProbe(name="web", host="127.0.0.1", port=port), NOW)
    assert (reading.value, reading.severity) == (None, Severity.ERROR)
