"""One transaction inside one tenant, and what commits with it.

BEGIN and `tlsy.enter` go out as one simple query, so context costs no round trip of its own. Nobody but this
module commits. Events of a transaction are written to the service's outbox by one statement just before
COMMIT; inbox rows and stored answers are rows of the same transaction.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg

from tlsy.runtime.ids import PLATFORM_TENANT_ID, service_principal
from tlsy.runtime.logging import get_logger
from tlsy.runtime.tracing import ORIGIN, current_traceparent, span_below
from tlsy.tenancy.context import IsolationMode, Platform
from tlsy.tenancy.database import is_committed, takes_no_writes
from tlsy.tenancy.errors import (
    DatabaseBusy,
    NotWritable,
    PlacementUnavailable,
    RequestIdReused,
    StaleEpoch,
)
from tlsy.tenancy.sql import ServiceStatements

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
    from datetime import date
    from uuid import UUID

    from tlsy.contracts.cloudevents import CloudEvent
    from tlsy.runtime.ids import PrincipalName, TenantId
    from tlsy.tenancy.catalog import Catalog
    from tlsy.tenancy.context import Placement, TenantContext
    from tlsy.tenancy.database import Connection, Databases
    from tlsy.tenancy.errors import TenancyError

T = TypeVar("T")

_UUID_VERSION: Final = 7
_MAX_EVENTS: Final = 10_000
_SERVER_GONE: Final = (
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.PostgresConnectionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
#: SQLSTATEs of what only an operator mends, whatever the statement: no disk, memory or connection left (53),
#: files that cannot be read or written (58), corrupt pages (XX001, XX002).
_ILL: Final = ("53", "58", "XX001", "XX002")
#: What the same transaction may be spared a moment later.
_BUSY: Final = (
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.QueryCanceledError,
    # What PostgreSQL itself did not expect, mostly of a catalogue that another session is just changing.
    asyncpg.InternalServerError,
)
#: Every statement is prepared against the tables of its release by a test: these tables are of one before.
_BEHIND: Final = (asyncpg.UndefinedColumnError, asyncpg.UndefinedTableError)


class _NoAnswerError(TimeoutError):
    """The client gave up on a statement, later than the server should have; not the caller's own deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotentRequest:
    """A mutating request that may be sent twice: the same one gets the same answer until `expires_at`."""

    principal: PrincipalName
    method: str
    request_id: UUID
    body_hash: bytes
    now: datetime
    expires_at: datetime


def uuid7_day(value: UUID) -> date:
    """The UTC day in a UUIDv7; ValueError for any other version."""
    if value.version != _UUID_VERSION:
        raise ValueError(f"{value} is not a UUIDv7")
    return datetime.fromtimestamp((value.int >> 80) / 1000, UTC).date()


class UnitOfWork:
    """The statements of one open transaction. Made and ended by `Tenancy`; not for several tasks at once.

    Statements name tenant tables without a schema; each has the pool's statement and lock timeouts. SQL
    errors are asyncpg's own inside the transaction; after one it can only end. What leaves it as
    PlacementUnavailable or DatabaseBusy is worth another try.
    """

    __slots__ = (
        "_answer",
        "_connection",
        "_correlation_id",
        "_events",
        "_kept",
        "_principal",
        "_sql",
        "_timeout_s",
        "notifies",
        "scope",
        "tells_at_once",
    )

    def __init__(
        self,
        connection: Connection,
        scope: TenantContext | Platform,
        sql: ServiceStatements,
        *,
        timeout_s: float,
        notifies: bool,
        itself: PrincipalName,
    ) -> None:
        origin = ORIGIN.get(None)
        self._principal = (origin.principal if origin is not None else None) or itself
        self._correlation_id = origin.correlation_id if origin is not None else ""
        self.scope = scope
        self.notifies = notifies
        self.tells_at_once = False
        self._connection = connection
        self._sql = sql
        self._timeout_s = timeout_s
        self._events: list[tuple[CloudEvent, date, float]] = []
        self._answer: tuple[IdempotentRequest, bytes | None] | None = None
        self._kept: tuple[int, tuple[IdempotentRequest, bytes | None] | None] = (0, None)

    @property
    def tenant_id(self) -> TenantId:
        """Whose transaction this is; the platform tenant's in the platform's scope."""
        return PLATFORM_TENANT_ID if isinstance(self.scope, Platform) else self.scope.tenant_id

    @property
    def epoch(self) -> int:
        """Of the tenant's placement, as it was entered; 0 in the platform's scope."""
        return 0 if isinstance(self.scope, Platform) else self.scope.epoch

    async def fetch(self, sql: str, *args: object) -> Sequence[asyncpg.Record]:
        """All rows of a statement."""
        return await _answered(self._connection.fetch(sql, *args, timeout=self._timeout_s))

    async def fetchrow(self, sql: str, *args: object) -> asyncpg.Record | None:
        """The first row, or None."""
        return await _answered(self._connection.fetchrow(sql, *args, timeout=self._timeout_s))

    async def fetchval(self, sql: str, *args: object) -> Any:
        """The first column of the first row, or None."""
        return await _answered(self._connection.fetchval(sql, *args, timeout=self._timeout_s))

    async def execute(self, sql: str, *args: object) -> str:
        """Run a statement; answers the command tag, e.g. "UPDATE 3"."""
        return await _answered(self._connection.execute(sql, *args, timeout=self._timeout_s))

    async def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Run a statement once per row of arguments, pipelined."""
        await _answered(self._connection.executemany(sql, rows, timeout=self._timeout_s))

    def publish(self, event: CloudEvent, *, sweep_after_s: float = 0) -> CloudEvent:
        """Put an event into the outbox when this transaction commits; order of calls is kept.

        It gets the principal and the request of the call or the event that this transaction answers, or the
        service itself as principal. If it says nothing of its trace it goes on with the one that is current.
        It is answered as it is in the outbox.

        A publisher that will send the event from memory after COMMIT gives `sweep_after_s`: the relay leaves
        the row alone so long, and is not woken. ValueError: another tenant's event (but in the platform's
        scope), an id that is no UUIDv7, or more than 10,000 events.
        """
        if not isinstance(self.scope, Platform) and event.tenant_id != self.scope.tenant_id:
            raise ValueError("an event of another tenant cannot be published in this transaction")
        event = replace(
            event,
            traceparent=event.traceparent or current_traceparent(),
            principal=self._principal,
            correlation_id=self._correlation_id,
        )
        if len(self._events) >= _MAX_EVENTS:
            raise ValueError(f"more than {_MAX_EVENTS} events in one transaction")
        self._events.append((event, uuid7_day(event.id), sweep_after_s))
        return event

    async def set_savepoint(self) -> None:
        """What is done from here on, `undo` takes back."""
        await self.execute("savepoint kept")
        self._kept = (len(self._events), self._answer)

    async def undo(self) -> None:
        """Takes back rows, locks, events and a claimed request since then; the transaction goes on."""
        await self.execute("rollback to savepoint kept")
        events, self._answer = self._kept
        del self._events[events:]

    async def first_delivery(self, consumer_group: str, event_id: UUID) -> bool:
        """Note that the group applies this event in this transaction; False if it already did."""
        sql = self._sql.first_delivery
        row = await self.fetchrow(sql, self.tenant_id, consumer_group, uuid7_day(event_id), event_id)
        return row is not None

    async def replay(self, request: IdempotentRequest) -> bytes | None:
        """The stored answer to this request, or None: then this transaction answers it, by `remember`.

        Waits while another transaction is answering the same request. Raises RequestIdReused if the id came
        with another body.
        """
        key = (self.tenant_id, request.principal, request.method, request.request_id)
        claimed = await self.fetchrow(
            self._sql.claim_request, *key, request.body_hash, request.expires_at, request.now
        )
        if claimed is not None:
            self._answer = (request, None)
            return None
        stored = await self.fetchrow(self._sql.stored_response, *key)
        if stored is None or stored["body_hash"] != request.body_hash:
            raise RequestIdReused(str(request.request_id))
        response: bytes = stored["response"]
        return response

    def remember(self, response: bytes) -> None:
        """Store the answer to the request that `replay` claimed."""
        if self._answer is None:
            raise ValueError("no request was claimed in this transaction")
        self._answer = (self._answer[0], response)

    async def write_out(self) -> None:
        """Send what was collected, in at most two statements; called once, just before COMMIT."""
        if self._answer is not None:
            request, response = self._answer
            if response is None:
                raise ValueError("a request was claimed but its answer was not remembered")
            key = (self.tenant_id, request.principal, request.method, request.request_id)
            await self.execute(self._sql.store_response, *key, response)
        if not self._events:
            return
        self.tells_at_once = not any(after_s for _, _, after_s in self._events)
        columns = zip(
            *(
                (e.tenant_id, day, e.id, e.key, e.type, e.source, e.epoch, e.time, e.traceparent, e.data, s)
                for e, day, s in self._events
            ),
            strict=True,
        )
        sql = self._sql.append_and_wake if self.notifies and self.tells_at_once else self._sql.append
        await self.execute(sql, *map(list, columns), self._principal, self._correlation_id)


class Tenancy:
    """Transactions of one service: in a tenant's placement, or in the control database.

    Args:
        package: the service's package name, e.g. "rules_engine": its schema, and the tail of its role.
        databases: connects as that role.
        control: the control database; its schema is not used.
        wake: called after the COMMIT of events in a database where nobody listens for a NOTIFY.
    """

    def __init__(
        self,
        *,
        package: str,
        databases: Databases,
        catalog: Catalog,
        control: Placement,
        wake: Callable[[Placement], None] | None = None,
    ) -> None:
        self._databases = databases
        self._wake = wake
        self._catalog = catalog
        self._control = control
        self._sql = ServiceStatements.load(package)
        self._itself = service_principal(package.replace("_", "-"))
        self._logger = get_logger("tenancy")

    @property
    def catalog(self) -> Catalog:
        """What this service knows of the tenants."""
        return self._catalog

    @asynccontextmanager
    async def transaction(self, tenant: TenantContext, *, write: bool) -> AsyncIterator[UnitOfWork]:
        """One transaction in the tenant's placement: COMMIT after the block, ROLLBACK if it raises.

        Raises StaleEpoch, NotWritable, PlacementUnavailable, DatabaseBusy. A read transaction is READ ONLY in
        the database.
        """
        pooled = self._databases.pooled(tenant.placement.cluster)
        notifies = tenant.mode is not IsolationMode.DEDICATED and not pooled
        with span_below("transaction"):
            async with self._transaction(tenant.placement, tenant, write=write, notifies=notifies) as tx:
                yield tx

    @asynccontextmanager
    async def control(self, scope: TenantContext | Platform, *, write: bool) -> AsyncIterator[UnitOfWork]:
        """The same in the control database, on the service's own tables: for one tenant, or for PLATFORM."""
        notifies = not self._databases.pooled(self._control.cluster)
        with span_below("transaction"):
            async with self._transaction(self._control, scope, write=write, notifies=notifies) as tx:
                yield tx

    async def run(self, tenant_id: TenantId, work: Callable[[UnitOfWork], Awaitable[T]], *, write: bool) -> T:
        """Resolve the tenant and run `work` in a transaction of its placement.

        Run once more, in a new transaction, if the placement proved stale (resolved again first) or if a
        cached statement did not fit the tables any longer. `work` must therefore keep nothing of a first run.
        """
        context = self._catalog.tenant(tenant_id).context
        try:
            async with self.transaction(context, write=write) as tx:
                return await work(tx)
        except StaleEpoch:
            context = (await self._catalog.refresh(tenant_id, context.epoch)).context
        except asyncpg.InvalidCachedStatementError:
            pass
        async with self.transaction(context, write=write) as tx:
            return await work(tx)

    @asynccontextmanager
    async def _transaction(
        self, placement: Placement, scope: TenantContext | Platform, *, write: bool, notifies: bool
    ) -> AsyncIterator[UnitOfWork]:
        timeout_s = self._databases.limits.command_timeout_s
        begun = committing = False
        async with self._databases.acquire(placement) as connection:
            tx = UnitOfWork(
                connection,
                scope,
                self._sql,
                timeout_s=timeout_s,
                notifies=notifies,
                itself=self._itself,
            )
            try:
                await _answered(connection.execute(_begin(scope, write=write), timeout=timeout_s))
                begun = True
                yield tx
                await tx.write_out()
                committing = True
                is_committed(await _answered(connection.execute("commit", timeout=timeout_s)))
            except asyncpg.PostgresError as error:
                gone = connection.is_closed() or isinstance(error, _SERVER_GONE)
                if gone or (write and takes_no_writes(error, begun=begun)):
                    # The next connection may be to a successor of this server.
                    connection.terminate()
                    why = f"lost: {error}"
                    raise PlacementUnavailable(placement, why, outcome_unknown=committing) from error
                meaning = self._meaning_of(error, placement, tx)
                if meaning is None:
                    raise
                raise meaning from error
            except _NoAnswerError as error:
                if committing:
                    raise PlacementUnavailable(placement, "no answer", outcome_unknown=True) from error
                raise DatabaseBusy(placement, "no answer") from error
            except (OSError, asyncpg.InterfaceError) as error:
                if not connection.is_closed():
                    raise
                raise PlacementUnavailable(placement, "lost", outcome_unknown=committing) from error
        if self._wake is not None and tx.tells_at_once and not notifies:
            self._wake(placement)

    def _meaning_of(
        self, error: asyncpg.PostgresError, placement: Placement, tx: UnitOfWork
    ) -> TenancyError | None:
        if error.sqlstate == "TL001":
            return StaleEpoch(f"epoch of {tx.tenant_id} changed")
        if error.sqlstate == "TL002":
            return NotWritable(f"{tx.tenant_id} is not writable")
        if isinstance(error, asyncpg.InternalServerError) or error.sqlstate.startswith(_ILL):
            # Callers are only told to try again.
            database, code = placement.database, error.sqlstate
            self._logger.error("database fails", database=database, sqlstate=code, error=str(error))
        if error.sqlstate.startswith(_ILL):
            return PlacementUnavailable(placement, f"{error.sqlstate}: {error}")
        if isinstance(error, _BUSY):
            return DatabaseBusy(placement, type(error).__name__)
        behind = _behind(error, tx.scope)
        return PlacementUnavailable(placement, f"{behind}: {error}") if behind else None


def _behind(error: asyncpg.PostgresError, scope: TenantContext | Platform) -> str:
    """What an upgrade or the next upkeep will make; "" if it is no such thing that is missing."""
    if isinstance(error, _BEHIND) and not isinstance(scope, Platform):
        return "it is not migrated to this release yet"
    # A check that a row breaks has a name.
    no_partition = isinstance(error, asyncpg.CheckViolationError) and not error.constraint_name
    return "its upkeep is behind" if no_partition else ""


async def _answered(sent: Awaitable[T]) -> T:
    try:
        return await sent
    except TimeoutError as error:
        raise _NoAnswerError from error


def _begin(scope: TenantContext | Platform, *, write: bool) -> str:
    """BEGIN and the context in one text; its only variables are a UUID, a number and a truth value."""
    mode = "read write" if write else "read only"
    if isinstance(scope, Platform):
        enter = "select tlsy.enter_platform()"
    else:
        # All three as literals: one without quotes is an int or a keyword first, and converted by a function.
        enter = f"call tlsy.enter('{scope.tenant_id}', '{scope.epoch:d}', '{'t' if write else 'f'}')"
    return f"begin isolation level read committed {mode}; {enter}"
