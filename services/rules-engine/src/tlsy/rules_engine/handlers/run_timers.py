"""What happens to a tenant though no event comes: deadlines, rules that changed, counts that wait in memory.

Runs beside the consumer, for the tenants whose partitions are assigned to this process, each in a transaction
of its own that holds the assignment's fence. After an assignment every tenant of the partition that has state
is loaded, so that its deadlines run on without an event of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import asyncpg

from tlsy.eventlog.errors import Fenced
from tlsy.rules_engine.handlers.on_events_accepted import MODULE
from tlsy.runtime.logging import get_logger, reset_log_fields, set_log_fields
from tlsy.tenancy.context import TenantState
from tlsy.tenancy.errors import DatabaseBusy, TenancyError, TenantNotUnderstood, UnknownTenant

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from uuid import UUID

    from tlsy.rules_engine.handlers.evaluation import Evaluation
    from tlsy.rules_engine.handlers.memory import Memories
    from tlsy.rules_engine.handlers.metrics import RulesMetrics
    from tlsy.rules_engine.handlers.ownership import Ownership
    from tlsy.rules_engine.ports import Backlog, EngineStates
    from tlsy.runtime.clock import Clock
    from tlsy.runtime.ids import TenantId
    from tlsy.tenancy.catalog import Catalog, TenantEntry
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


class Fence(Protocol):
    """Refuses transactions of a former owner; `PartitionFence` is one."""

    async def hold(self, tx: UnitOfWork, epoch: int) -> None:
        """Raises Fenced."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerSettings:
    """How often, and how many at a time.

    Attributes:
        tick_s: between looks at the deadlines.
        retry_s: before a tenant that failed is tried again.
        at_once: tenants worked on at a time.
    """

    tick_s: float = 0.5
    retry_s: float = 5.0
    at_once: int = 4


class RunTimers:
    """The loop; see the module's text."""

    def __init__(
        self,
        *,
        tenancy: Tenancy,
        catalog: Catalog,
        evaluation: Evaluation,
        states: EngineStates,
        memories: Memories,
        ownership: Ownership,
        fence: Fence,
        backlog: Backlog,
        clock: Clock,
        settings: TimerSettings,
        metrics: RulesMetrics,
    ) -> None:
        self._tenancy = tenancy
        self._catalog = catalog
        self._evaluation = evaluation
        self._states = states
        self._memories = memories
        self._ownership = ownership
        self._fence = fence
        self._backlog = backlog
        self._clock = clock
        self._settings = settings
        self._metrics = metrics
        self._seen: frozenset[tuple[int, int]] = frozenset()
        self._unvisited: set[TenantId] = set()
        self._woken: set[TenantId] = set()
        self._retry_at: dict[TenantId, float] = {}
        self._wakeup = asyncio.Event()
        self._logger = get_logger("timers")

    def wake(self, tenant_id: TenantId) -> None:
        """The tenant's rules changed: have them in force at once, if the tenant is owned here."""
        if self._ownership.partition_of(tenant_id) is not None:
            self._woken.add(tenant_id)
            self._wakeup.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`."""
        while not stopping.is_set():
            self._notice_assignments()
            await self._round()
            await self._pause(stopping)

    def _notice_assignments(self) -> None:
        assignments = self._ownership.assignments()
        for partition, _ in assignments - self._seen:
            self._unvisited.update(tenant.tenant_id for tenant in self._ownership.tenants_of(partition))
        self._seen = assignments

    async def _round(self) -> None:
        gate = asyncio.Semaphore(self._settings.at_once)
        now_us = int(self._clock.now().timestamp() * 1_000_000)
        due = dict(self._memories.due(now_us))
        awake = list(self._awake(due))
        overdue_us = now_us - min((since for *_, since in awake if since is not None), default=now_us)
        self._metrics.timers_lag_s.set(overdue_us / 1_000_000)
        todo = self._todo(awake)
        parked = {place: await self._parked(place) for place in {place for _, place, _ in todo}}
        work = []
        for tenant, partition, due_us in todo:
            waiting, tenant_id = parked[partition], tenant.tenant_id
            waits = waiting is not None and tenant_id in waiting
            if waits and tenant_id not in self._woken:
                if tenant_id in due:
                    self._lose(tenant_id)
                continue
            until_us = None if waits or waiting is None else self._until_us(tenant, partition, now_us)
            if due_us is None or (until_us is not None and until_us >= due_us):
                work.append(self._guarded(gate, tenant, partition, until_us))
        await asyncio.gather(*work)

    async def _parked(self, partition: int) -> Collection[UUID] | None:
        """Those whose time stands still; None, and everybody's does, while it is not known."""
        try:
            return await self._backlog.parked(partition)
        except (TenancyError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            self._logger.warning("timers wait for the control database", error=repr(error))
            return None

    def _lose(self, tenant_id: TenantId) -> None:
        """Its events are not judged now, or not even taken: it is followed anew once they are again."""
        self._memories.lose(tenant_id)
        self._unvisited.add(tenant_id)

    def _until_us(self, tenant: TenantEntry, partition: int, now_us: int) -> int:
        """How far processing time may pass for a tenant: not beyond its events that wait to be applied."""
        applied_us = self._backlog.applied_until_us(partition, tenant.tenant_id.hex.encode())
        return now_us if applied_us is None else min(now_us, applied_us)

    def _awake(self, due: Mapping[TenantId, int]) -> Iterator[tuple[TenantEntry, int, int | None]]:
        """Tenants that ask to be worked on and may be, their partitions, and since when they are due."""
        for tenant_id in self._memories.followed():
            # Also who is back before anything is due was not heard meanwhile.
            self._evaluated(tenant_id)
        for tenant_id in self._woken | self._unvisited | due.keys():
            partition = self._ownership.partition_of(tenant_id)
            if partition is None:
                self._done(tenant_id)
                continue
            tenant = self._evaluated(tenant_id)
            if tenant is not None:
                yield tenant, partition, due.get(tenant_id)

    def _todo(
        self, awake: Iterable[tuple[TenantEntry, int, int | None]]
    ) -> list[tuple[TenantEntry, int, int | None]]:
        """Those to work on now, with since when they are due only if nothing else asks; the asked first."""
        now = self._clock.monotonic()
        asked = self._woken | self._unvisited
        todo = [
            (tenant, partition, None if tenant.tenant_id in asked else since)
            for tenant, partition, since in awake
            if self._retry_at.get(tenant.tenant_id, now) <= now
        ]
        return sorted(todo, key=lambda each: each[2] is not None)

    def _evaluated(self, tenant_id: TenantId) -> TenantEntry | None:
        """The tenant. One that is suspended, not understood, or has the module off waits until it is back."""
        try:
            tenant = self._catalog.tenant(tenant_id)
        except UnknownTenant:
            self._done(tenant_id)
            return None
        except TenantNotUnderstood:
            return None
        if tenant.state is TenantState.ACTIVE and MODULE in tenant.modules:
            return tenant
        self._lose(tenant_id)
        return None

    def _done(self, tenant_id: TenantId) -> None:
        """The tenant is another's, or gone; so must be what is in memory of it."""
        self._memories.lose(tenant_id)
        self._woken.discard(tenant_id)
        self._unvisited.discard(tenant_id)
        self._retry_at.pop(tenant_id, None)

    async def _guarded(
        self, gate: asyncio.Semaphore, tenant: TenantEntry, partition: int, until_us: int | None
    ) -> None:
        """One tenant's failure is its own: its memory is dropped, and it is tried again later."""
        tenant_id = tenant.tenant_id
        async with gate:
            token = set_log_fields({"tenant": str(tenant_id)})
            woken = tenant_id in self._woken
            self._woken.discard(tenant_id)
            try:
                await self._advance(tenant, partition, until_us, woken=woken)
            except Fenced:
                self._ownership.lost(partition)
                self._done(tenant_id)
            except Exception as error:  # noqa: BLE001 - whatever it was, the others go on
                self._logger.warning("timers of a tenant did not run", error=repr(error))
                # What holds the rule set's lock is the consumer, which hears of the tenant.
                busy = isinstance(error, DatabaseBusy)
                (self._memories.drop if busy else self._memories.lose)(tenant_id)
                (self._woken if woken else self._unvisited).add(tenant_id)
                self._retry_at[tenant_id] = self._clock.monotonic() + self._settings.retry_s
            else:
                self._unvisited.discard(tenant_id)
                self._retry_at.pop(tenant_id, None)
            finally:
                reset_log_fields(token)

    async def _advance(
        self, tenant: TenantEntry, partition: int, until_us: int | None, *, woken: bool
    ) -> None:
        tenant_id = tenant.tenant_id
        epoch = self._ownership.epoch(partition)
        if epoch is None:
            return
        if tenant_id in self._unvisited and not woken:
            loaded = self._memories.get(tenant_id) is not None
            if loaded or not await self._tenancy.run(tenant_id, self._states.exists, write=False):
                return

        async def work(tx: UnitOfWork) -> None:
            await self._fence.hold(tx, epoch)
            await self._evaluation.advance(tx, tenant.slug, partition, until_us=until_us)

        await self._tenancy.run(tenant_id, work, write=True)

    async def _pause(self, stopping: asyncio.Event) -> None:
        waits = [
            asyncio.create_task(stopping.wait()),
            asyncio.create_task(self._wakeup.wait()),
            asyncio.create_task(self._clock.sleep(self._settings.tick_s)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        self._wakeup.clear()
