from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from base64 import b64encode
from dataclasses import replace

import pytest
from aiokafka.protocol.admin import (
    ApiVersionResponse_v0,
    SaslAuthenticateResponse_v0,
    SaslHandShakeResponse_v1,
)

from libs.eventlog.tests.test_brokers_are_spoken_to_behind_tls import refusal
from libs.eventlog.tests.world import TOPIC, until
from tlsy.eventlog.errors import LogUnavailable
from tlsy.eventlog.kafka import KafkaProducer
from tlsy.eventlog.kafka_readers import KafkaGroupReader
from tlsy.eventlog.letter_box import LetterBox
from tlsy.runtime.brokers import Brokers
from tlsy.testkit.certificates import Authority
from tlsy.testkit.listening import keep_silent, listening

HANDSHAKE, AUTHENTICATE = 17, 36
UNPROVEN = "does not prove that it knows the password of user tlsy"
#: What it says last. Of the password it knows nothing.
WRONG, NONE, NO_TEXT = b"v=" + b64encode(bytes(64)), b"e=other-error", b"\xff"


class Talker:
    """Can do nothing but let in, and notes who is still there."""

    def __init__(self):
        self._talks = []

    def __call__(self, connection):
        self._talks.append(talked := threading.Event())
        with contextlib.suppress(OSError):
            self._talk(connection)
            connection.shutdown(socket.SHUT_WR)
            keep_silent(connection)
        talked.set()

    def _talk(self, connection):
        with connection.makefile("rb") as asked:
            while size := asked.read(4):
                request = asked.read(*struct.unpack(">i", size))
                (key,) = struct.unpack_from(">h", request)
                answer = request[4:8] + self._answer(key, request).encode()
                connection.sendall(struct.pack(">i", len(answer)) + answer)

    def _answer(self, key, request):
        return ApiVersionResponse_v0(0, [(HANDSHAKE, 0, 1), (AUTHENTICATE, 0, 0)])

    async def left(self):
        """Whether whoever came is gone; no client of aiokafka waits for that."""
        return all(talk.is_set() for talk in self._talks)


class Liar(Talker):
    """Takes every proof, and says `last` for its own."""

    def __init__(self, last, nonce="theirs", iterations=b"4096"):
        super().__init__()
        self._last = last
        self._nonce = nonce
        self._iterations = iterations

    def _answer(self, key, request):
        if key == HANDSHAKE:
            return SaslHandShakeResponse_v1(0, ["SCRAM-SHA-512"])
        if key != AUTHENTICATE:
            return super()._answer(key, request)
        _, first, nonce = request.rpartition(b"n=tlsy,r=")
        asked_for = b"r=%s%s,s=c2FsdA==,i=%s" % (nonce, self._nonce.encode(), self._iterations)
        return SaslAuthenticateResponse_v0(0, None, asked_for if first else self._last)


class Clinging(Talker):
    """Says no farewell to whoever comes after the first, as TLS would have it."""

    def _talk(self, connection):
        clings = len(self._talks) > 1
        super()._talk(connection)
        while clings and socket.socket.recv(connection, 1024):
            pass


@contextlib.asynccontextmanager
async def speaking(directory, talker):
    """The way to one that shows our certificate."""
    ours = Authority(directory, "ours")
    files = ours.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert_file, files.key_file)
    password = directory / "password"
    password.write_text("opens it")
    with listening(talker, context=context) as port:
        yield Brokers(f"localhost:{port}", ca_file=ours.file, user="tlsy", password_file=password)
        await until(talker.left)


async def nothing(partitions):
    """For a group that nobody gets into."""


@pytest.mark.parametrize("liar", [Liar(WRONG), Liar(NONE), Liar(NO_TEXT), Liar(b""), Liar(WRONG, ",=")])
async def test_whatever_proves_nothing_is_a_refusal(tmp_path, liar):
    async with speaking(tmp_path, liar) as brokers:
        assert UNPROVEN in await refusal(brokers)


@pytest.mark.parametrize("iterations", [b"4096", b"250000"])
async def test_an_iteration_count_within_bounds_is_worked_through(tmp_path, iterations):
    async with speaking(tmp_path, Liar(WRONG, iterations=iterations)) as brokers:
        assert UNPROVEN in await refusal(brokers)


@pytest.mark.parametrize("iterations", [b"-1", b"1", b"4095", b"250001"])
async def test_no_broker_says_how_long_we_compute_or_how_weakly_we_hash(tmp_path, iterations):
    async with speaking(tmp_path, Liar(WRONG, iterations=iterations)) as brokers:
        told = f"wants the password hashed {iterations.decode()} times, where 4096 to 250000 are taken"
        assert told in await refusal(brokers)


async def test_every_client_refuses_who_proves_nothing(tmp_path):
    async with speaking(tmp_path, Liar(WRONG)) as brokers:
        with pytest.raises(LogUnavailable):
            await KafkaProducer(brokers, "test").publish([], timeout_s=20)
        reader = KafkaGroupReader(brokers, "any", [TOPIC], "test")
        with pytest.raises(LogUnavailable):
            await reader.start(nothing, nothing)
        await reader.stop()
        with pytest.raises(LogUnavailable):
            async with LetterBox.opened(brokers, TOPIC, "any"):
                pass


async def test_nobody_waits_for_the_farewell_of_a_broker_that_let_in(tmp_path):
    async with speaking(tmp_path, Clinging()) as brokers, asyncio.timeout(20):
        inward = replace(brokers, user="", password_file=None)
        reader = KafkaGroupReader(inward, "any", [TOPIC], "test")
        with pytest.raises(LogUnavailable):
            await reader.start(nothing, nothing)
        await reader.stop()
