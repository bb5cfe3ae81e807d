from __future__ import annotations

import asyncio
import os
import socket
import ssl
from dataclasses import astuple, replace
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from libs.rpc.tests.world import World
from tlsy.contracts.identity.v1 import identity_pb2, identity_pb2_grpc
from tlsy.rpc.certificates import CertificateFiles
from tlsy.runtime.host import TlsFiles
from tlsy.testkit.certificates import Authority

NAMES = ("tls.crt", "tls.key", "ca.crt")


def files_in(directory: Path) -> TlsFiles:
    return TlsFiles(*(directory / name for name in NAMES))


def copy(issued: TlsFiles, to: TlsFiles) -> None:
    for source, target in zip(astuple(issued), astuple(to), strict=True):
        target.write_bytes(source.read_bytes())


class Mounted:
    """A Secret as Kubernetes mounts it: each name leads over `..data` to the version in force."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "mounted"
        self.directory.mkdir()
        for name in NAMES:
            (self.directory / name).symlink_to(f"..data/{name}")
        self.files = files_in(self.directory)

    def switch(self, version: str, issued: TlsFiles) -> None:
        """Put a new version into force, all of it in one step."""
        made = self.directory / f"..{version}"
        made.mkdir()
        copy(issued, files_in(made))
        link = self.directory / "..data_tmp"
        link.symlink_to(made.name)
        link.replace(self.directory / "..data")


@pytest.fixture
def authority(directory) -> Authority:
    return Authority(directory, "ours")


@pytest.fixture
def peer(authority: Authority) -> TlsFiles:
    return authority.issue("peer")


@pytest.fixture
def mounted(directory, authority) -> Mounted:
    made = Mounted(directory)
    made.switch("first", authority.issue("first"))
    return made


@pytest.fixture
async def port(directory, mounted):
    world = World(directory)
    world.host = replace(world.host, listen="127.0.0.1:0", tls=mounted.files)
    server = world.server()
    await server.start()
    yield server.port
    await server.stop(0)


async def shown(port: int, peer: TlsFiles) -> str:
    """The name in the certificate that a new connection is shown."""
    context = ssl.create_default_context(cafile=str(peer.ca_file))
    context.load_cert_chain(peer.cert_file, peer.key_file)
    context.set_alpn_protocols(["h2"])

    def shake_hands() -> str:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            return x509.load_der_x509_certificate(secured.getpeercert(True) or b"").subject.rfc4514_string()[
                3:
            ]

    return await asyncio.to_thread(shake_hands)


async def answered(port: int, peer: TlsFiles) -> bool:
    chain, key, authority = (file.read_bytes() for file in astuple(peer))
    credentials = grpc.ssl_channel_credentials(authority, key, chain)
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        call = identity_pb2_grpc.IdentityServiceStub(channel).LogIn(identity_pb2.LogInRequest(), timeout=20)
        return await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_secret_that_is_switched_is_shown_and_read_once(port, authority, peer, mounted, log_lines):
    assert [await shown(port, peer) for _ in range(2)] == ["first", "first"]
    mounted.switch("second", authority.issue("second"))
    assert [await shown(port, peer) for _ in range(2)] == ["second", "second"]
    assert [line["event"] for line in log_lines].count("certificate renewed") == 1


async def test_files_that_are_written_over_are_shown_to_new_connections(port, authority, peer, mounted):
    assert await shown(port, peer) == "first"
    copy(authority.issue("second"), mounted.files)
    assert await shown(port, peer) == "second"


async def test_callers_of_a_renewed_authority_are_taken(port, directory, peer, mounted):
    assert await answered(port, peer)
    theirs = Authority(directory, "theirs")
    mounted.switch("second", theirs.issue("second"))
    assert await answered(port, theirs.issue("their-peer"))
    assert not await answered(port, replace(peer, ca_file=theirs.file))


def half(file) -> None:
    file.write_bytes(file.read_bytes()[:-40])


SPOILED = {
    "one of two": lambda files, issued: files.cert_file.write_bytes(issued.cert_file.read_bytes()),
    "half a certificate": lambda files, _: half(files.cert_file),
    "half a key": lambda files, _: half(files.key_file),
    "half an authority": lambda files, _: half(files.ca_file),
    "nothing": lambda files, _: os.truncate(files.cert_file, 0),
    "no key": lambda files, _: files.key_file.unlink(),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
async def test_files_that_are_not_whole_change_nothing_and_are_told_once(
    port, authority, peer, mounted, spoil, log_lines
):
    issued = authority.issue("second")
    spoil(mounted.files, issued)
    assert [await shown(port, peer) for _ in range(3)] == ["first"] * 3
    assert [line["event"] for line in log_lines if line["level"] == "error"] == ["certificate not renewed"]
    copy(issued, mounted.files)
    assert await shown(port, peer) == "second"
    assert "certificate renewed" in {line["event"] for line in log_lines}


class Counted(type(Path())):  # type: ignore[misc]  # which of the two it is depends on the system
    """Counts how often it is read."""

    reads = 0

    def read_bytes(self):
        self.reads += 1
        return super().read_bytes()


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
async def test_files_that_are_not_whole_are_read_once(authority, mounted, spoil):
    """A caller asks before each call, and to see that a key is none takes a good while."""
    counted = replace(mounted.files, cert_file=Counted(mounted.files.cert_file))
    files = CertificateFiles(counted, "test")
    files.read()
    issued = authority.issue("second")
    spoil(mounted.files, issued)
    assert [files.renewed() for _ in range(3)] == [None] * 3
    assert counted.cert_file.reads <= 2
    copy(issued, mounted.files)
    assert files.renewed() is not None


async def test_files_that_do_not_fit_each_other_start_no_server(directory, authority, mounted):
    mounted.files.key_file.write_bytes(authority.issue("second").key_file.read_bytes())
    world = World(directory)
    world.host = replace(world.host, listen="127.0.0.1:0", tls=mounted.files)
    with pytest.raises(ValueError, match="another certificate"):
        await world.server().start()
