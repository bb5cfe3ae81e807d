"""Connections to every database of every cluster, bounded in all.

One pool per (cluster, database), made at first use. `total` bounds the open connections of the process; when
it is reached, the idle connection that was used longest ago, of whatever database, makes room. A database
to which none can be made fails at once, unless one is idle, until its next probe is due, one probe at a time,
so that it holds neither connections nor callers. A server that is merely full is asked again each time.

A connection comes back clean (idle, no transaction) or is dropped. Nothing is sent on the way back: there is
no session state to reset, because context is local to a transaction and services never SET anything.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from tlsy.tenancy.array_types import know_arrays
from tlsy.tenancy.errors import PlacementUnavailable, UnknownCluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from typing import TypeAlias

    from tlsy.runtime.clock import Clock
    from tlsy.tenancy.context import Placement

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]

_CLOSE_TIMEOUT_S: Final = 1.0
#: The same while somebody waits who wants another database, which this one's silence is not to slow down.
_MAKE_ROOM_TIMEOUT_S: Final = 0.1
_CONNECTION_ERRORS: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
#: asyncpg's own default; behind a pooler that cannot follow prepared statements it must be 0.
_STATEMENT_CACHE_SIZE: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterAddress:
    """How this process reaches one PostgreSQL server, as its own role.

    Attributes:
        host: a name, an address, or the directory of a unix socket.
        user: the login role of this process.
        tls: None only inside one machine.
        pooled: behind a pooler in transaction mode: no prepared statements, no start-up settings (the role's
            own settings hold instead), no NOTIFY.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    tls: ssl.SSLContext | None = None
    pooled: bool = False

    @classmethod
    def from_dsn(cls, dsn: str, user: str | None = None) -> ClusterAddress:
        """From "postgresql://user:password@host:port"; `user`, if given, is the role to connect as.

        The directory of a unix socket is `?host=`; `sslmode=verify-full` with `sslrootcert=` demands TLS (any
        mode but `disable` does the same); `pooled=1` tells of a pooler in transaction mode.
        """
        parts = urlsplit(dsn)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        tls = None
        if query.get("sslmode", "disable") != "disable":
            tls = ssl.create_default_context(cafile=query.get("sslrootcert"))
        return cls(
            host=query.get("host") or parts.hostname or "127.0.0.1",
            port=parts.port or 5432,
            user=user or unquote(parts.username or "postgres"),
            password=unquote(parts.password or ""),
            tls=tls,
            pooled=query.get("pooled") == "1",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """Bounds of one process's connections.

    Attributes:
        total: open connections over all databases.
        per_database: open connections to one; below `total`, so that one slow database leaves others theirs.
        acquire_timeout_s: waiting for a connection, connecting included.
        connect_timeout_s: one attempt to connect.
        statement_timeout_s: one statement, enforced by the server; the client gives up a second later.
        lock_timeout_s: waiting for a lock, enforced by the server.
        idle_transaction_timeout_s: a transaction without a statement; the server then ends the session.
        retry_after_s: an unreachable database is probed after this, then after twice as long, up to
        retry_after_max_s.
    """

    total: int = 32
    per_database: int = 8
    acquire_timeout_s: float = 3.0
    connect_timeout_s: float = 2.0
    statement_timeout_s: float = 10.0
    lock_timeout_s: float = 5.0
    idle_transaction_timeout_s: float = 30.0
    retry_after_s: float = 0.25
    retry_after_max_s: float = 5.0

    @property
    def command_timeout_s(self) -> float:
        """When the client stops waiting for an answer: the server's own limit should come first."""
        return self.statement_timeout_s + 1.0

    def server_settings(self) -> dict[str, str]:
        """What a session starts with."""
        return {
            "statement_timeout": _ms(self.statement_timeout_s),
            "lock_timeout": _ms(self.lock_timeout_s),
            "idle_in_transaction_session_timeout": _ms(self.idle_transaction_timeout_s),
            "jit": "off",
        }


def _ms(seconds: float) -> str:
    return str(int(seconds * 1000))


@asynccontextmanager
async def transaction(connection: Connection) -> AsyncIterator[None]:
    """A transaction that may write: a standby refuses to begin it.

    The driver's own would ask once more of a server that left a statement unanswered; here the connection is
    given up. If the borrower is cancelled, whoever lent the connection rolls back.
    """
    try:
        await connection.execute("begin read write")
        yield
        is_committed(await connection.execute("commit"))
    except TimeoutError:
        connection.terminate()
        raise
    except Exception:
        if not connection.is_closed() and connection.is_in_transaction():
            with suppress(*_CONNECTION_ERRORS):
                await connection.execute("rollback")
        raise


def is_committed(answer: str) -> None:
    """What COMMIT answers: after a statement that failed, of which nobody was told, it is ROLLBACK."""
    if answer != "COMMIT":
        raise RuntimeError("an error was swallowed: nothing of this transaction is committed")


def takes_no_writes(error: asyncpg.PostgresError, *, begun: bool) -> bool:
    """A standby refuses to begin what may write, with 0A000; 25006 comes of what became read only since."""
    return error.sqlstate == ("25006" if begun else "0A000")


class _Pool:
    """The connections to one database, and whether it answers."""

    __slots__ = ("borrowers", "failures", "idle", "key", "open", "probe_at", "probing", "slots")

    def __init__(self, key: tuple[str, str], limit: int) -> None:
        self.key = key
        self.slots = asyncio.Semaphore(limit)
        self.idle: deque[tuple[float, Connection]] = deque()  # the last one used is the last
        self.open = 0
        self.borrowers = 0  # callers that have a connection or wait for one
        self.failures = 0
        self.probe_at = 0.0
        self.probing = False


class Databases:
    """Lends connections to databases; see the module's text for the rules.

    Belongs to one event loop. `close` ends idle connections at once and the others when they come back.
    """

    def __init__(self, clusters: Mapping[str, ClusterAddress], limits: PoolLimits, clock: Clock) -> None:
        self._clusters = clusters
        self._limits = limits
        self._clock = clock
        self._pools: dict[tuple[str, str], _Pool] = {}
        self._pooled: dict[str, bool] = {}
        self._capacity = asyncio.Semaphore(limits.total)
        self._waiting_for_room = 0
        self._returning: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def limits(self) -> PoolLimits:
        """The bounds given at construction."""
        return self._limits

    def pooled(self, cluster: str) -> bool:
        """Whether a pooler in transaction mode is in between: no session lasts, so nobody hears a NOTIFY.

        Asked once of each cluster; of one that is not known, which nobody can connect to, each time.
        """
        if cluster not in self._pooled:
            try:
                address = self._clusters.get(cluster)
            except (OSError, ValueError):
                return False  # whoever connects is told why
            if address is None:
                return False
            self._pooled[cluster] = address.pooled
        return self._pooled[cluster]

    def open_connections(self) -> Mapping[tuple[str, str], int]:
        """Open connections by (cluster, database); for metrics."""
        return {key: pool.open for key, pool in self._pools.items()}

    @asynccontextmanager
    async def acquire(self, placement: Placement) -> AsyncIterator[Connection]:
        """Lend a connection to the placement's database; its schema is not entered.

        Raises PlacementUnavailable (at once while the database is known to be away, else within
        acquire_timeout_s; later if the server ended the connection between two statements) and
        UnknownCluster. What is left open (a transaction, a cancelled statement) is rolled back before anybody
        else gets the connection, also if the borrower is cancelled meanwhile.
        """
        key = (placement.cluster, placement.database)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = _Pool(key, min(self._limits.per_database, self._limits.total))
        pool.borrowers += 1
        try:
            async with asyncio.timeout(self._limits.acquire_timeout_s):
                connection = await self._borrow(pool, placement)
        except BaseException as error:
            self._leave(pool)
            if isinstance(error, TimeoutError):
                raise PlacementUnavailable(placement, "no connection is free") from error
            raise
        try:
            yield connection
        except BaseException as error:
            if isinstance(error, asyncpg.InternalClientError):
                connection.terminate()
            returning = asyncio.ensure_future(self._clean(pool, connection))
            self._returning.add(returning)
            returning.add_done_callback(self._returning.discard)
            await asyncio.shield(returning)
            if isinstance(error, asyncpg.InternalClientError):
                # The server's last word was read and its end was not yet, so nothing more could be sent.
                raise PlacementUnavailable(placement, "lost") from error
            raise
        if connection.is_closed() or connection.is_in_transaction() or self._closed or self._waiting_for_room:
            await asyncio.shield(self._clean(pool, connection))
        else:
            self._keep(pool, connection)

    async def close(self) -> None:
        """End every connection that is idle now, and each other one when it is given back."""
        self._closed = True
        if self._returning:
            await asyncio.wait(self._returning, timeout=2 * _CLOSE_TIMEOUT_S)
        for pool in list(self._pools.values()):
            while pool.idle:
                await self._drop(pool, pool.idle.pop()[1])

    async def drop_idle(self, placement: Placement) -> None:
        """End the idle connections to the placement's database, e.g. because it is about to be dropped."""
        pool = self._pools.get((placement.cluster, placement.database))
        while pool is not None and pool.idle:
            await self._drop(pool, pool.idle.pop()[1])

    async def _borrow(self, pool: _Pool, placement: Placement) -> Connection:
        if self._closed:
            raise PlacementUnavailable(placement, "this process is stopping")
        if not pool.idle:
            self._refuse_while_away(pool, placement)
        await pool.slots.acquire()
        try:
            while pool.idle:
                connection = pool.idle.pop()[1]
                if not connection.is_closed():
                    return connection
                self._closed_one(pool)
            self._refuse_while_away(pool, placement)
            await self._reserve(pool)
            try:
                return await self._connect(pool, placement)
            except BaseException:
                self._closed_one(pool)
                raise
        except BaseException:
            pool.slots.release()
            raise

    def _refuse_while_away(self, pool: _Pool, placement: Placement) -> None:
        """To connect once more would only take time."""
        if pool.failures and (pool.probing or self._clock.monotonic() < pool.probe_at):
            raise PlacementUnavailable(placement, "it did not answer a moment ago")

    async def _reserve(self, pool: _Pool) -> None:
        """Count one more open connection, for which an idle one of another database may have to go."""
        if self._capacity.locked():
            candidates = [other for other in self._pools.values() if other.idle]
            if candidates:
                oldest = min(candidates, key=lambda other: other.idle[0][0])
                await self._drop(oldest, oldest.idle.popleft()[1], _MAKE_ROOM_TIMEOUT_S)
        self._waiting_for_room += 1
        try:
            await self._capacity.acquire()
        finally:
            self._waiting_for_room -= 1
        pool.open += 1

    async def _connect(self, pool: _Pool, placement: Placement) -> Connection:
        address = self._clusters.get(placement.cluster)
        if address is None:
            raise UnknownCluster(placement.cluster)
        pool.probing = pool.failures > 0
        try:
            connection = await asyncpg.connect(
                host=address.host,
                port=address.port,
                user=address.user,
                password=address.password,
                database=placement.database,
                ssl=address.tls if address.tls is not None else False,
                timeout=self._limits.connect_timeout_s,
                # Also of what asyncpg sends of its own accord: BEGIN, COMMIT, a statement's cancellation.
                command_timeout=self._limits.command_timeout_s,
                statement_cache_size=0 if address.pooled else _STATEMENT_CACHE_SIZE,
                server_settings=None if address.pooled else self._limits.server_settings(),
            )
        except asyncpg.TooManyConnectionsError as error:
            raise PlacementUnavailable(placement, "the server takes no more connections") from error
        except _CONNECTION_ERRORS as error:
            wait_s = min(self._limits.retry_after_s * 2**pool.failures, self._limits.retry_after_max_s)
            pool.failures = min(pool.failures + 1, 16)
            pool.probe_at = self._clock.monotonic() + wait_s
            why = f"cannot connect ({type(error).__name__})"
            raise PlacementUnavailable(placement, why, refused=True) from error
        finally:
            pool.probing = False
        pool.failures = 0
        know_arrays(connection)
        return connection

    async def _clean(self, pool: _Pool, connection: Connection) -> None:
        """Take back a connection in an unknown state, or one that others need the room of."""
        try:
            if not connection.is_closed() and not connection.is_in_transaction():
                # After a cancelled statement, maybe a BEGIN, this waits until the server has stopped it.
                # No empty text: the driver fails on the answer to that.
                await connection.execute("select", timeout=_CLOSE_TIMEOUT_S)
            if not connection.is_closed() and connection.is_in_transaction():
                await connection.execute("rollback", timeout=_CLOSE_TIMEOUT_S)
        except _CONNECTION_ERRORS:
            connection.terminate()
        if not connection.is_closed() and not self._closed and not self._waiting_for_room:
            self._keep(pool, connection)
            return
        await self._drop(pool, connection)
        pool.slots.release()
        self._leave(pool)

    def _keep(self, pool: _Pool, connection: Connection) -> None:
        pool.idle.append((self._clock.monotonic(), connection))
        pool.slots.release()
        self._leave(pool)

    async def _drop(self, pool: _Pool, connection: Connection, timeout_s: float = _CLOSE_TIMEOUT_S) -> None:
        try:
            await connection.close(timeout=timeout_s)
        except _CONNECTION_ERRORS:
            connection.terminate()
        finally:
            self._closed_one(pool)

    def _closed_one(self, pool: _Pool) -> None:
        pool.open -= 1
        self._capacity.release()
        self._forget_if_unused(pool)

    def _leave(self, pool: _Pool) -> None:
        pool.borrowers -= 1
        self._forget_if_unused(pool)

    def _forget_if_unused(self, pool: _Pool) -> None:
        if not (pool.borrowers or pool.open or pool.failures) and self._pools.get(pool.key) is pool:
            del self._pools[pool.key]
