from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from libs.rpc.tests.world import SERVICES, World
from tlsy.contracts.identity.v1 import identity_pb2 as identity
from tlsy.contracts.identity.v1 import identity_pb2_grpc
from tlsy.rpc.channel import CallPolicy, dial
from tlsy.runtime.host import TlsFiles

if TYPE_CHECKING:
    from pathlib import Path

DESCRIPTOR = SERVICES["identity"][0]


class Authority:
    """Signs certificates for "localhost" into files."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = directory / f"{name}.pem"
        self._certificate = self._sign(self._key.public_key(), name, authority=True)
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(self, public_key, subject: str, *, authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._name)]))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def issue(self, name: str) -> TlsFiles:
        key = ec.generate_private_key(ec.SECP256R1())
        files = TlsFiles(self._directory / f"{name}.crt", self._directory / f"{name}.key", self.file)
        certificate = self._sign(key.public_key(), name, authority=False)
        files.cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files.key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files


@pytest.fixture
async def secured(directory):
    """A world whose server listens with mTLS, and the authority that it trusts."""
    authority = Authority(directory, "ours")
    world = World(directory)
    world.host = replace(world.host, listen="127.0.0.1:0", tls=authority.issue("server"))
    server = world.server()
    await server.start()
    listen, known_as = f"127.0.0.1:{server.port}", f"localhost:{server.port}"
    world.host = replace(world.host, service="ingestion", listen=listen, peers={"identity": known_as})
    yield world, authority
    await server.stop(0)


async def answer(world: World) -> identity.ListRevocationsResponse:
    policy = CallPolicy(timeout_s=2, attempts=2)
    async with dial(world.host, DESCRIPTOR, world.service_tokens(), policy) as channel:
        stub = identity_pb2_grpc.IdentityServiceStub(channel)
        return await stub.ListRevocations(identity.ListRevocationsRequest())


async def test_a_peer_with_our_certificate_is_answered(secured):
    world, authority = secured
    world.host = replace(world.host, tls=authority.issue("peer"))
    assert await answer(world) == identity.ListRevocationsResponse()


async def test_a_service_that_calls_itself_by_its_address_checks_the_name_it_is_known_by(secured):
    world, _ = secured
    world.host = replace(world.host, service="identity")
    assert await answer(world) == identity.ListRevocationsResponse()


@pytest.mark.parametrize("stranger", ["clear", "another authority"])
async def test_a_peer_without_our_certificate_is_not(secured, directory, stranger):
    world, authority = secured
    files = None
    if stranger == "another authority":
        files = replace(Authority(directory, "theirs").issue("peer"), ca_file=authority.file)
    world.host = replace(world.host, tls=files)
    with pytest.raises(grpc.aio.AioRpcError):
        await answer(world)
    assert world.identity.calls == []
