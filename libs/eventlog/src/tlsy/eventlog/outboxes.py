"""The outboxes of one service, in every database, as the relay sees them: as role tlsy_relay.

The lead of an outbox is an advisory lock of the transaction in which its rows are read, published and marked:
it ends with the connection, needs no session (so a pooler may stand between), and cannot be forgotten.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import asyncpg

from tlsy.contracts.cloudevents import CloudEvent
from tlsy.eventlog.statements import statements
from tlsy.tenancy.database import takes_no_writes, transaction
from tlsy.tenancy.errors import PlacementUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from datetime import date

    from tlsy.eventlog.ports import Position
    from tlsy.tenancy.context import Placement
    from tlsy.tenancy.database import Connection, Databases

_KEEP_ALIVE_S: Final = 10.0
_MAX_COUNTED: Final = 100_000


@dataclass(frozen=True, slots=True)
class Backlog:
    """Rows that wait to be published: how many (100,000 at most are counted), and since when."""

    items: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class Applied:
    """Below `next_offset` of a partition of an earlier incarnation, every group has applied everything."""

    log: int
    partition: int
    next_offset: int


class Outbox:
    """One database's outbox while this process leads it; every method is a statement of one transaction."""

    __slots__ = ("_connection", "_sql", "_timeout_s")

    def __init__(self, connection: Connection, sql: Mapping[str, str], timeout_s: float) -> None:
        self._connection = connection
        self._sql = sql
        self._timeout_s = timeout_s

    async def reconciled_log(self) -> int:
        """The incarnation of the topic that the rows' marks were last compared with; 0 for none yet.

        Until the end of the transaction nobody but it marks rows: a mark that commits between the comparison
        of its row and the note that all are compared would never be compared.
        """
        value = await self._connection.fetchval(self._sql["select_reconciled_log"], timeout=self._timeout_s)
        return int(value or 0)

    async def store_reconciled_log(self, log: int) -> None:
        """Note that no row's mark speaks of records that `log` lacks and somebody still needs."""
        await self._connection.execute(self._sql["store_reconciled_log"], log, timeout=self._timeout_s)

    async def unmark_lost(self, day: date, log: int, applied: Sequence[Applied], limit: int) -> int:
        """Make rows of `day` unpublished again whose records went with an earlier log; answers how many."""
        tag = await self._connection.execute(
            self._sql["unmark_lost"],
            day,
            log,
            [entry.log for entry in applied],
            [entry.partition for entry in applied],
            [entry.next_offset for entry in applied],
            limit,
            timeout=self._timeout_s,
        )
        return int(tag.split()[-1])

    async def unpublished(self, *, limit: int, max_bytes: int, all_rows: bool) -> list[CloudEvent]:
        """The oldest unpublished rows; `all_rows`: also those that their writer may still be sending."""
        rows = await self._connection.fetch(
            self._sql["select_unpublished"], limit, max_bytes, all_rows, timeout=self._timeout_s
        )
        return [
            CloudEvent(
                id=row["event_id"],
                type=row["type"],
                source=row["source"],
                tenant_id=row["tenant_id"],
                epoch=row["epoch"],
                time=row["occurred_at"],
                key=row["key"],
                data=row["data"],
                traceparent=row["traceparent"],
                principal=row["principal"],
                correlation_id=row["correlation_id"],
            )
            for row in rows
        ]

    async def mark(self, published: Sequence[tuple[CloudEvent, Position]], log: int) -> bool:
        """Note where the records of these rows are.

        False, and nothing is marked, if the rows were compared with a later incarnation by now.
        """
        reconciled = await self._connection.fetchval(
            self._sql["hold_reconciled_log"], timeout=self._timeout_s
        )
        if reconciled is not None and reconciled > log:
            return False
        await self._connection.execute(
            self._sql["mark_published"],
            [event.tenant_id for event, _ in published],
            [day_of(event) for event, _ in published],
            [event.id for event, _ in published],
            log,
            [position.partition for _, position in published],
            [position.offset for _, position in published],
            timeout=self._timeout_s,
        )
        return True

    async def backlog(self) -> Backlog:
        """What waits, also rows that their writer may still be sending."""
        row = await self._connection.fetchrow(
            self._sql["select_backlog"], _MAX_COUNTED, timeout=self._timeout_s
        )
        return Backlog(row["items"], row["oldest"]) if row else Backlog(0, None)


class Outboxes:
    """Opens the outbox of one service in any database, and keeps the service's books in the control one.

    Args:
        package: the service's package name, its schema everywhere.
        databases: connects as tlsy_relay.
        control: the control database.
        listening: connects as tlsy_relay too; `listen` keeps one of its connections for each database.
    """

    def __init__(
        self, package: str, databases: Databases, control: Placement, *, listening: Databases
    ) -> None:
        self._package = package
        self._sql = statements(package)
        self._timeout_s = databases.limits.command_timeout_s
        self._databases = databases
        self._listening = listening
        self._control = control

    @asynccontextmanager
    async def lead(self, placement: Placement) -> AsyncIterator[Outbox | None]:
        """The outbox, in a transaction that commits after the block; None while another process leads it.

        Raises PlacementUnavailable.
        """
        async with self._transaction(placement) as connection:
            leads = await connection.fetchval(self._sql["lead"], timeout=self._timeout_s)
            yield self._outbox(connection) if leads else None

    async def mark(
        self, placement: Placement, published: Sequence[tuple[CloudEvent, Position]], log: int
    ) -> bool:
        """`Outbox.mark` without leading: for what a writer itself published. Raises PlacementUnavailable."""
        async with self._transaction(placement) as connection:
            return await self._outbox(connection).mark(published, log)

    async def listen(self, placement: Placement, wake: Callable[[], None]) -> None:
        """Call `wake` on every NOTIFY of a writer, until cancelled. Raises PlacementUnavailable when lost."""
        channel = f"tlsy_outbox_{self._package}"
        async with self._listening.acquire(placement) as connection:
            try:
                await connection.add_listener(channel, lambda *_: wake())
                wake()
                while not connection.is_closed():
                    await asyncio.sleep(_KEEP_ALIVE_S)
                    await connection.execute("select 1", timeout=self._timeout_s)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                connection.terminate()
                raise PlacementUnavailable(placement, "lost while listening") from error
            except asyncio.CancelledError:
                connection.terminate()
                raise

    async def topic_log(self, topic: str) -> tuple[int, str] | None:
        """The topic's incarnation and the cluster id that it is of. Raises PlacementUnavailable."""
        async with self._transaction(self._control) as connection:
            row = await connection.fetchrow(self._sql["select_topic_log"], topic, timeout=self._timeout_s)
            return (row["incarnation"], row["cluster_id"]) if row else None

    async def open_topic_log(self, topic: str, cluster_id: str) -> None:
        """Begin incarnation 1, unless the topic has one."""
        async with self._transaction(self._control) as connection:
            await connection.execute(self._sql["open_topic_log"], topic, cluster_id, timeout=self._timeout_s)

    async def next_topic_log(self, topic: str, after: int, cluster_id: str) -> None:
        """Begin the incarnation after `after`, unless another process already did."""
        async with self._transaction(self._control) as connection:
            await connection.execute(
                self._sql["next_topic_log"], topic, after, cluster_id, timeout=self._timeout_s
            )

    async def topic_ends(self, topic: str, log: int) -> Mapping[int, int]:
        """Partition to the highest offset that was acknowledged in this incarnation."""
        async with self._transaction(self._control) as connection:
            rows = await connection.fetch(self._sql["select_topic_ends"], topic, log, timeout=self._timeout_s)
            return {row["partition"]: row["acknowledged_offset"] for row in rows}

    async def store_topic_ends(self, topic: str, log: int, ends: Mapping[int, int]) -> None:
        """Raise the highest acknowledged offsets."""
        async with self._transaction(self._control) as connection:
            await connection.execute(
                self._sql["store_topic_ends"],
                topic,
                log,
                list(ends.keys()),
                list(ends.values()),
                timeout=self._timeout_s,
            )

    async def applied(self, topic: str, seen_since: datetime) -> list[Applied]:
        """How far all groups that were seen since then are, in every incarnation that they know."""
        async with self._transaction(self._control) as connection:
            rows = await connection.fetch(
                self._sql["select_applied"], topic, seen_since, timeout=self._timeout_s
            )
            return [Applied(row["incarnation"], row["partition"], row["next_offset"]) for row in rows]

    async def forget_watermarks(self, topic: str, unchanged_since: datetime) -> None:
        """Delete watermarks that are older than any row that they could concern."""
        async with self._transaction(self._control) as connection:
            await connection.execute(
                self._sql["forget_watermarks"], topic, unchanged_since, timeout=self._timeout_s
            )

    def _outbox(self, connection: Connection) -> Outbox:
        return Outbox(connection, self._sql, self._timeout_s)

    @asynccontextmanager
    async def _transaction(self, placement: Placement) -> AsyncIterator[Connection]:
        begun = False
        async with self._databases.acquire(placement) as connection:
            try:
                async with transaction(connection):
                    begun = True
                    yield connection
            except asyncpg.PostgresError as error:
                if not connection.is_closed() and not takes_no_writes(error, begun=begun):
                    raise
                # The next connection may be to a successor of this server.
                connection.terminate()
                raise PlacementUnavailable(placement, f"lost: {error}") from error
            except (OSError, asyncpg.InterfaceError) as error:
                connection.terminate()
                raise PlacementUnavailable(placement, f"lost ({type(error).__name__})") from error


def day_of(event: CloudEvent) -> date:
    """The UTC day in the event's UUIDv7: the partition of its outbox and inbox rows."""
    return datetime.fromtimestamp((event.id.int >> 80) / 1000, UTC).date()
