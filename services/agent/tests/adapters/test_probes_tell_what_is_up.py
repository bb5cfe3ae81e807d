from __future__ import annotations

import asyncio
import ssl
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tlsy.agent.adapters.background import Background
from tlsy.agent.adapters.probes import probe_http, probe_tcp, probe_tls
from tlsy.agent.domain.readings import Severity
from tlsy.agent.settings import HttpProbe, TcpProbe, TlsProbe
from tlsy.testkit.listening import listening

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def tls_context(tmp_path):
    """A server's context with a certificate that ends in so many days."""

    def make(days: float, now: datetime = NOW) -> ssl.SSLContext:
        end = now + timedelta(days=days)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(end - timedelta(days=500))
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
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


@pytest.fixture
def background():
    return Background()


async def test_an_open_port_is_up_and_a_closed_one_is_down_with_the_reason(background):
    with listening() as port:
        up = await probe_tcp(TcpProbe(name="web", host="127.0.0.1", port=port), background)
    down = await probe_tcp(TcpProbe(name="web", host="127.0.0.1", port=port), background)
    assert (up.value, up.severity, "error" in up.labels) == (1.0, Severity.INFO, False)
    assert (down.value, down.severity, "error" in down.labels) == (0.0, Severity.ERROR, True)


@pytest.mark.parametrize(("expected", "value"), [((200,), 0.0), ((302,), 1.0)])
async def test_an_http_status_is_up_only_if_it_is_expected(expected, value, background):
    answer = b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"
    with listening(answer) as port:
        reading = await probe_http(
            HttpProbe(name="web", url=f"http://127.0.0.1:{port}/", expect_status=expected), background
        )
    assert (reading.value, reading.labels["status"]) == (value, "302")


async def test_something_that_speaks_no_http_is_down(background):
    with listening(b"SSH-2.0-OpenSSH\r\n") as port:
        reading = await probe_http(HttpProbe(name="web", url=f"http://127.0.0.1:{port}/"), background)
    assert reading.value == 0.0


@pytest.mark.parametrize(
    ("days", "severity"),
    [(90, Severity.INFO), (20, Severity.WARNING), (3, Severity.ERROR), (-2, Severity.ERROR)],
)
async def test_a_certificate_is_told_in_days_also_when_it_has_ended(tls_context, days, severity, background):
    with listening(context=tls_context(days)) as port:
        reading = await probe_tls(TlsProbe(name="web", host="127.0.0.1", port=port), NOW, background)
    assert reading.value == pytest.approx(days)
    assert reading.severity is severity


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_certificate_is_told_also_where_the_server_wants_one_of_its_client(
    tls_context, tmp_path, version, background
):
    context = tls_context(90)
    context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(tmp_path / "server.pem")
    with listening(context=context) as port:
        reading = await probe_tls(TlsProbe(name="web", host="127.0.0.1", port=port), NOW, background)
    assert reading.value == pytest.approx(90)


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"\x16\x03\x03\x00\x04\x0b\x00\x00\x00"])
async def test_what_answers_without_a_certificate_has_no_value(answer, background):
    with listening(answer) as port:
        reading = await probe_tls(TlsProbe(name="web", host="127.0.0.1", port=port), NOW, background)
    assert (reading.value, reading.severity) == (None, Severity.ERROR)
    assert " " in reading.labels["error"]


async def test_a_certificate_that_cannot_be_had_has_no_value(background):
    with listening() as port:
        pass
    reading = await probe_tls(TlsProbe(name="web", host="127.0.0.1", port=port), NOW, background)
    assert (reading.value, reading.severity) == (None, Severity.ERROR)


@pytest.mark.parametrize(("trusted", "value"), [(True, 1.0), (False, 0.0)])
async def test_an_encrypted_address_is_up_only_if_its_certificate_is_trusted(
    tls_context, tmp_path, trusted, value, background
):
    context = tls_context(90, datetime.now(UTC))
    with listening(b"HTTP/1.1 200 OK\r\n\r\n", context=context) as port:
        ca_file = tmp_path / "server.pem" if trusted else None
        reading = await probe_http(
            HttpProbe(name="web", url=f"https://localhost:{port}/", ca_file=ca_file), background
        )
    assert reading.value == value
    assert ("CERTIFICATE_VERIFY_FAILED" in reading.labels.get("error", "")) is not trusted


async def test_an_interim_answer_is_not_the_answer(background):
    with listening(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n") as port:
        reading = await probe_http(HttpProbe(name="web", url=f"http://127.0.0.1:{port}/"), background)
    assert (reading.value, reading.labels["status"]) == (1.0, "200")


async def test_an_answer_that_breaks_off_in_its_headers_is_none(background):
    with listening(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n") as port:
        reading = await probe_http(HttpProbe(name="web", url=f"http://127.0.0.1:{port}/"), background)
    assert (reading.value, reading.labels["error"]) == (0.0, "the answer breaks off in its headers")


async def test_an_address_is_told_without_its_query(background):
    with listening(b"HTTP/1.1 200 OK\r\n\r\n") as port:
        url = f"http://127.0.0.1:{port}/health?token=s3cret#part"
        reading = await probe_http(HttpProbe(name="web", url=url), background)
    assert reading.labels["target"] == f"http://127.0.0.1:{port}/health"


@pytest.mark.parametrize("host", ["a..b", f"{'x' * 64}.example", "a\0b"])
async def test_a_host_that_can_be_none_is_down_like_one_that_is_away(host, background):
    tcp = await probe_tcp(TcpProbe(name="x", host=host, port=80), background)
    tls = await probe_tls(TlsProbe(name="x", host=host, port=80), NOW, background)
    assert (tcp.value, tls.value) == (0.0, None)
    assert tcp.labels["error"]


async def test_a_server_that_drips_its_headers_is_down_at_the_deadline(background):
    left = threading.Event()

    def drip(connection):
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not left.wait(0.01):
                connection.sendall(b"a")
        except OSError:
            left.set()

    with listening(drip) as port:
        url = f"http://127.0.0.1:{port}/"
        reading = await probe_http(HttpProbe(name="web", url=url, timeout_s=0.2), background)
        assert await asyncio.to_thread(left.wait, 10)
    assert (reading.value, reading.labels["error"]) == (0.0, "no answer in 0.2 s")


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\nX: "])
async def test_a_line_that_is_too_long_is_told_as_such(before, background):
    with listening(before + b"a" * 70_000 + b"\r\n\r\n") as port:
        reading = await probe_http(HttpProbe(name="web", url=f"http://127.0.0.1:{port}/"), background)
    assert (reading.value, reading.labels["error"]) == (0.0, "a line of more than 64 KiB of headers")


async def test_a_server_that_hangs_up_is_told_in_words(background):
    with listening() as port:
        reading = await probe_http(HttpProbe(name="web", url=f"https://127.0.0.1:{port}/"), background)
    assert (reading.value, reading.labels["error"]) == (0.0, "what answers hung up")
