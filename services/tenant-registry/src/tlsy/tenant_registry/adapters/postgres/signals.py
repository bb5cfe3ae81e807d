"""Hears what other transactions NOTIFY: operations that are due, or ended."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg

from tlsy.runtime.logging import get_logger
from tlsy.runtime.service import Task
from tlsy.tenancy.errors import TenancyError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from tlsy.runtime.clock import Clock
    from tlsy.tenancy.context import Placement
    from tlsy.tenancy.database import Databases

_DUE: Final = "tlsy_operation_due"
_ENDED: Final = "tlsy_operation_ended"
_ALIVE_S: Final = 10.0
_RETRY_S: Final = 0.5
_POLL_S: Final = 0.5


class PostgresSignals:
    """See `tlsy.tenant_registry.ports.Signals`; a component with one connection.

    While it is not connected nothing is heard: whenever it connects, everybody is woken once. Through a
    pooler in transaction mode nobody hears anything: everybody is woken twice a second, without a connection.

    Attributes:
        due: set by every operation that is new; who waits for it clears it.
    """

    def __init__(self, databases: Databases, control: Placement, clock: Clock) -> None:
        self._databases = databases
        self._control = control
        self._clock = clock
        self._watchers: dict[UUID, set[asyncio.Event]] = {}
        self.due = asyncio.Event()
        self._logger = get_logger("registry.signals")
        self._task = Task("signals", self._run)

    @property
    def name(self) -> str:
        """See `Component.name`."""
        return self._task.name

    async def start(self) -> None:
        """See `Component.start`."""
        await self._task.start()

    async def stop(self, grace_s: float) -> None:
        """See `Component.stop`."""
        await self._task.stop(grace_s)

    async def wait(self) -> None:
        """See `Component.wait`."""
        await self._task.wait()

    @contextmanager
    def watch(self, operation_ids: Collection[UUID]) -> Iterator[asyncio.Event]:
        """See the port."""
        event = asyncio.Event()
        for operation_id in operation_ids:
            self._watchers.setdefault(operation_id, set()).add(event)
        try:
            yield event
        finally:
            for operation_id in operation_ids:
                watchers = self._watchers[operation_id]
                watchers.discard(event)
                if not watchers:
                    del self._watchers[operation_id]

    async def _run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            if self._databases.pooled(self._control.cluster):
                self._wake_all()
                await self._clock.sleep(_POLL_S)
                continue
            try:
                async with self._databases.acquire(self._control) as connection:
                    try:
                        await self._hear(connection, stopping)
                    finally:
                        # A session that listens is of no use to anybody else.
                        connection.terminate()
            except (TenancyError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                self._logger.warning("not listening", error=str(error))
                await self._clock.sleep(_RETRY_S)
        await self._databases.close()

    async def _hear(self, connection: asyncpg.Connection[asyncpg.Record], stopping: asyncio.Event) -> None:
        for channel in (_DUE, _ENDED):
            await connection.add_listener(channel, self._heard)
        self._wake_all()
        stopped = asyncio.ensure_future(stopping.wait())
        try:
            while not stopping.is_set():
                await asyncio.wait({stopped}, timeout=_ALIVE_S)
                await connection.execute("select 1", timeout=_ALIVE_S)
        finally:
            stopped.cancel()

    def _heard(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        if channel == _DUE:
            self.due.set()
            return
        for event in self._watchers.get(UUID(str(payload)), ()):
            event.set()

    def _wake_all(self) -> None:
        self.due.set()
        for events in self._watchers.values():
            for event in events:
                event.set()
