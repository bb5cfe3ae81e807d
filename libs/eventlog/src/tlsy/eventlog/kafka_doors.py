"""How a client of aiokafka gets in, and why not: aiokafka logs that, and raises only that it did not."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final

from aiokafka import conn
from aiokafka.conn import ScramAuthenticator, collect_hosts, create_conn
from aiokafka.errors import KafkaConnectionError, KafkaError, SaslAuthenticationFailed

from tlsy.eventlog.errors import LogUnavailable
from tlsy.runtime.brokers import FileUnusable

if TYPE_CHECKING:
    from tlsy.runtime.brokers import Brokers

_PROBE_TIMEOUT_MS: Final = 2_000
#: RFC 7677 wants 4096 at least. The most is beyond what any guide asks for, and computed within a second;
#: Kafka itself makes no password of more than 16,384.
_MIN_ITERATIONS: Final = 4_096
_MAX_ITERATIONS: Final = 250_000
#: OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
_OTHER_NAME: Final = frozenset({62, 64})


class _Doubted(SaslAuthenticationFailed):  # type: ignore[misc]  # aiokafka has no types
    """What says it is a broker does what none does; the text is what."""


class _Doubting(ScramAuthenticator):  # type: ignore[misc]  # aiokafka has no types
    """Raises for an answer that proves nothing what aiokafka raises where a log-in is refused.

    By itself it raises ValueError, KeyError and others, which end its own tasks, and ours. And it hashes the
    password as often as the other end says: for hours, or so seldom that it is guessed from what we answer.
    """

    def _step(self, payload: bytes | None) -> Any:
        try:
            return super()._step(payload)
        except _Doubted:
            raise
        except Exception as error:
            user = self._sasl_plain_username
            raise _Doubted(f"does not prove that it knows the password of user {user}") from error

    def create_salted_password(self, salt: bytes, iterations: int) -> None:
        if not _MIN_ITERATIONS <= iterations <= _MAX_ITERATIONS:
            taken = f"{_MIN_ITERATIONS} to {_MAX_ITERATIONS}"
            raise _Doubted(f"wants the password hashed {iterations} times, where {taken} are taken")
        super().create_salted_password(salt, iterations)


def arguments(brokers: Brokers) -> dict[str, Any]:
    """See `Brokers.arguments`; has aiokafka doubt who cannot prove to be a broker, too.

    Raises:
        LogUnavailable: a file is not what it has to be.
    """
    conn.ScramAuthenticator = _Doubting  # aiokafka has no setting for it
    try:
        return brokers.arguments()
    except FileUnusable as error:
        raise LogUnavailable(str(error)) from error


def check_written(brokers: Brokers, written: tuple[tuple[int, ...], ...]) -> None:
    """Raises LogUnavailable if a client made then holds what is not good any more.

    It would be refused at its next connection, and aiokafka tries that for ever without a word to us.
    """
    if brokers.written() != written:
        raise LogUnavailable("a file that lets us in was written anew")


async def start(client: Any, brokers: Brokers) -> None:
    """Start a client that was made with `brokers.arguments()`.

    Raises:
        KafkaConnectionError: no broker answers.
        LogUnavailable: none lets us in; why, by broker.
    """
    try:
        await client.start()
    except KafkaConnectionError as error:
        if brokers.ca_file is None:
            raise
        raise LogUnavailable(await _refusals(brokers) or str(error)) from error


def told(error: BaseException) -> str:
    """What an error says; some of aiokafka's say nothing but what they are."""
    return str(error) or type(error).__name__


async def _refusals(brokers: Brokers) -> str:
    how = arguments(brokers)
    refusals = []
    for host, port, _ in collect_hosts(how.pop("bootstrap_servers"), randomize=False):
        try:
            connection = await create_conn(host, port, request_timeout_ms=_PROBE_TIMEOUT_MS, **how)
        except (OSError, KafkaError, TimeoutError) as error:
            refusals.append(f"{host}:{port} {_words(error, brokers)}")
        else:
            await _hang_up(connection)
    return "; ".join(refusals)


async def _hang_up(connection: Any) -> None:
    """Without the farewell of the other end, for which TLS waits half a minute."""
    writer = connection._writer  # noqa: SLF001 - aiokafka has no public way to it
    if writer is not None:
        writer.transport.abort()
    await connection.close()


def _words(error: BaseException, brokers: Brokers) -> str:
    # That a certificate was missing is told after the handshake; aiokafka raises something of its own then.
    cause = error if error.__cause__ is None else error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code in _OTHER_NAME:
            return f"shows a certificate of another host: {cause.verify_message}"
        return f"shows a certificate that {brokers.ca_file} does not vouch for: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        reason = (cause.reason or str(cause)).replace("_", " ").lower()
        if "alert" in reason:
            shown = brokers.cert_file or "no certificate"
            return f"refuses us, who showed {shown}: {reason}"
        return f"speaks no TLS that we know: {reason}"
    if isinstance(error, SaslAuthenticationFailed):
        said = str(error.args[0])
        refused = f"refuses user {brokers.user} and its password: {said}"
        return said if isinstance(error, _Doubted) else refused
    return f"does not answer by TLS: {error!r}"
