"""What the registry does by itself: due operations and upkeep, in one process of all at a time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from tlsy.runtime.causes import caused_by
from tlsy.runtime.logging import get_logger
from tlsy.tenancy.context import PLATFORM
from tlsy.tenancy.errors import LeaseLost, TenancyError
from tlsy.tenancy.lease import renew_lease, take_lease

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from tlsy.runtime.ids import TenantId
    from tlsy.tenancy.context import Placement
    from tlsy.tenancy.database import Databases
    from tlsy.tenancy.lease import Lease
    from tlsy.tenant_registry.domain.operation import Operation
    from tlsy.tenant_registry.handlers.catalogue import Catalogue
    from tlsy.tenant_registry.handlers.run_operation import Placements, RunOperation

_LEASE: Final = "provisioner"
#: A lease is renewed, and tried for, this often in its time.
_BEATS: Final = 3
_FAILURES: Final = (TenancyError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
_RETRY_S: Final = 0.5
_SWEEP: Final = timedelta(seconds=5)
_PUT_OFF: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """Something done again and again by who holds the lease; what must be fenced uses it."""

    name: str
    every_s: float
    run: Callable[[Lease], Awaitable[None]]


class Provisioner:
    """Runs due operations while it holds the lease; what `Task` runs.

    There may be any number of provisioners: one works, the others try for its lease. What a former holder
    still does is refused by the fencing token at its next action, and every action may be done twice. It
    wakes when an operation is new, when one of its own ended, when one becomes due, and every few seconds.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        run_operation: RunOperation,
        *,
        databases: Databases,
        control: Placement,
        placements: Callable[[Lease], Placements],
        due: asyncio.Event,
        duties: tuple[Duty, ...],
        holder: str,
        lease_s: float,
        in_flight: int,
    ) -> None:
        """Wire it.

        Args:
            catalogue: finds due operations.
            run_operation: attempts one.
            databases: connects as tlsy_migrator, for the lease.
            control: the control database.
            placements: what carries out actions under a lease.
            due: set when an operation is new.
            duties: besides.
            holder: names this process.
            lease_s: how long a lease lasts without renewal.
            in_flight: operations at once, and one more that moves a fence.
        """
        self._catalogue = catalogue
        self._run_operation = run_operation
        self._databases = databases
        self._control = control
        self._placements = placements
        self._due = due
        self._duties = duties
        self._holder = holder
        self._lease_s = lease_s
        self._in_flight = in_flight
        self._logger = get_logger("registry.provisioner")

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`; who takes the lease next finishes what is begun. Closes `databases`."""
        stopped = asyncio.ensure_future(stopping.wait())
        try:
            while not stopping.is_set():
                lease = await self._take()
                if lease is not None:
                    await self._hold(lease, stopped)
                pause_s = self._lease_s / _BEATS if lease is None else _RETRY_S
                await asyncio.wait({stopped}, timeout=pause_s)
        finally:
            stopped.cancel()
            await self._databases.close()

    async def _take(self) -> Lease | None:
        try:
            async with self._databases.acquire(self._control) as connection:
                return await take_lease(connection, _LEASE, self._holder, self._lease_s)
        except _FAILURES as error:
            self._logger.warning("lease not taken", error=str(error))
            return None

    async def _hold(self, lease: Lease, stopped: asyncio.Future[Any]) -> None:
        """Work until stopped, or until the lease is lost or a defect ends one of the tasks."""
        tasks: set[asyncio.Future[Any]] = {
            asyncio.ensure_future(self._renew(lease)),
            asyncio.ensure_future(self._operate(self._placements(lease))),
            *(asyncio.ensure_future(self._repeat(duty, lease)) for duty in self._duties),
        }
        try:
            done, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in done & tasks:
            try:
                task.result()
            except LeaseLost:
                self._logger.warning("lease lost")
        if stopped.done():
            await self._release(lease)

    async def _renew(self, lease: Lease) -> None:
        while True:
            await self._catalogue.clock.sleep(self._lease_s / _BEATS)
            try:
                async with self._databases.acquire(self._control) as connection:
                    await renew_lease(connection, lease, self._lease_s)
            except LeaseLost:
                raise
            except _FAILURES as error:
                self._logger.warning("lease not renewed", error=str(error))

    async def _release(self, lease: Lease) -> None:
        """Let another take it at once; if that fails, it expires."""
        try:
            async with self._databases.acquire(self._control) as connection:
                await renew_lease(connection, lease, 0.0)
        except _FAILURES as error:
            self._logger.warning("lease not released", error=str(error))

    async def _operate(self, placements: Placements) -> None:
        running: dict[asyncio.Future[None], TenantId] = {}
        try:
            while True:
                self._due.clear()
                pause_s = await self._begin(placements, running)
                woken = asyncio.ensure_future(self._due.wait())
                waited: set[asyncio.Future[Any]] = {woken, *running}
                await asyncio.wait(waited, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
                for task in [task for task in running if task.done()]:
                    del running[task]
                    task.result()
        finally:
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running)

    async def _begin(self, placements: Placements, running: dict[asyncio.Future[None], TenantId]) -> float:
        """Begin what is due as far as there is room; answers in how many seconds to look again.

        Fences first, and one place is theirs alone: neither a suspension nor the closing of who is deleted
        waits for a creation or an erasure.
        """
        now, next_at = self._catalogue.clock.now(), self._catalogue.clock.now() + _SWEEP
        try:
            found = await self._due_operations(now, set(running.values()), self._in_flight + 1 - len(running))
        except _FAILURES as error:
            self._logger.warning("operations not read", error=str(error))
            return _RETRY_S
        for operation in found:
            if operation.due_at > now:
                next_at = min(next_at, operation.due_at)
            elif operation.moves_fence or len(running) < self._in_flight:
                attempt = asyncio.ensure_future(self._attempt(operation, placements))
                running[attempt] = operation.target_id
        return (next_at - now).total_seconds()

    async def _due_operations(
        self, now: datetime, busy: AbstractSet[TenantId], room: int
    ) -> Sequence[Operation]:
        if room <= 0:
            return ()
        async with self._catalogue.tenancy.control(PLATFORM, write=False) as tx:
            return await self._catalogue.operations.due(tx, now, now + _SWEEP, busy=busy, limit=room)

    async def _attempt(self, operation: Operation, placements: Placements) -> None:
        with caused_by(operation.cause, operation.target_id):
            try:
                await self._run_operation.run(operation, placements)
            except LeaseLost:
                raise
            except _FAILURES as error:
                # The control database was away when the result was to be written: it is still due.
                self._logger.warning("attempt not recorded", tenant=operation.target_slug, error=str(error))
                await self._catalogue.clock.sleep(_RETRY_S)
            except Exception:
                # What one operation meets, of damaged rows say, stops no other.
                self._logger.exception("attempt not possible", tenant=operation.target_slug)
                await self._put_off(operation)

    async def _put_off(self, operation: Operation) -> None:
        """Out of the way of the others; the steps that the attempt got done stay done."""
        operations, now = self._catalogue.operations, self._catalogue.clock.now()
        try:
            async with self._catalogue.writing() as tx:
                left = await operations.get(tx, operation.operation_id)
                if left is not None:
                    await operations.save(tx, replace(left, due_at=now + _PUT_OFF), now)
        except _FAILURES as error:
            self._logger.warning("not put off", tenant=operation.target_slug, error=str(error))
            await self._catalogue.clock.sleep(_RETRY_S)

    async def _repeat(self, duty: Duty, lease: Lease) -> None:
        while True:
            try:
                await duty.run(lease)
            except _FAILURES as error:
                self._logger.warning("duty not done", duty=duty.name, error=str(error))
            await self._catalogue.clock.sleep(duty.every_s)
