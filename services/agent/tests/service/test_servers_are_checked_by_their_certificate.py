from __future__ import annotations

import os
from contextlib import asynccontextmanager
from datetime import timedelta

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc import aio

from tlsy.agent.adapters.ingest import IngestionServer
from tlsy.agent.ports import DeliveryError
from tlsy.agent.settings import Endpoints, ServerTls
from tlsy.contracts.identity.v1 import identity_pb2_grpc
from tlsy.contracts.ingestion.v1 import ingestion_pb2, ingestion_pb2_grpc
from tlsy.runtime.clock import SystemClock


@pytest.fixture
async def encrypted(stand_in, tmp_path):
    """The stand-in on a port of its own with a certificate for localhost; gives (port, the certificate)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), SystemClock().now()
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "ca.pem").write_bytes(pem)
    server = aio.server()
    identity_pb2_grpc.add_IdentityServiceServicer_to_server(stand_in, server)
    ingestion_pb2_grpc.add_IngestionServiceServicer_to_server(stand_in, server)
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(private, pem)]))
    await server.start()
    yield f"localhost:{port}", tmp_path / "ca.pem"
    await server.stop(0)


@asynccontextmanager
async def connected(target, tls, tmp_path):
    (tmp_path / "key").write_text("the-key")
    endpoints = Endpoints(identity=target, ingestion=target, tls=tls)
    server = IngestionServer(endpoints, tmp_path / "key", SystemClock(), os.urandom)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


async def test_a_server_of_a_trusted_authority_gets_the_events(encrypted, stand_in, tmp_path):
    target, ca_file = encrypted
    async with connected(target, ServerTls(ca_file=ca_file), tmp_path) as server:
        await server.deliver([ingestion_pb2.Event(id="1")])
    assert stand_in.batches == [["1"]]


@pytest.mark.parametrize("tls", [None, ServerTls()])
async def test_a_server_of_another_gets_neither_key_nor_events(encrypted, stand_in, tmp_path, tls):
    async with connected(encrypted[0], tls, tmp_path) as server:
        with pytest.raises(DeliveryError):
            await server.deliver([ingestion_pb2.Event(id="1")])
    assert (stand_in.tokens, stand_in.batches) == (0, [])
