"""What happens to a tenant though no event comes: deadlines, rules that changed, counts that wait in memory.

Runs beside the consumer, for the tenants whose partitions are assigned to this process, each in a transaction
of its own that holds the assignment's fence. After an assignment every tenant of the partition that has state
is loaded, so that its deadlines run on without an event of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tlsy.eventlog.errors import Fenced
from tlsy.rules_engine.handlers.on_events_accepted import MODULE
from tlsy.runtime.logging import get_logger, reset_log_fields, set_log_fields
from tlsy.tenancy.context import TenantState
from tlsy.tenancy.errors import UnknownTenant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsy.rules_engine.handlers.evaluation import Evaluation
    from tlsy.rules_engine.handlers.memory import Memories
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
        waits: dict[int, bool] = {}
        todo = list(self._todo())
        for partition in {partition for _, partition, _ in todo}:
            waits[partition] = await self._backlog.waits(partition)
        await asyncio.gather(
            *(
                self._guarded(gate, tenant, partition, time_passes=not waits[partition])
                for tenant, partition, timed in todo
                if not (timed and waits[partition])
            )
        )

    def _todo(self) -> Iterator[tuple[TenantEntry, int, bool]]:
        """Tenants to work on, their partitions, and whether only the time asks for it."""
        now = self._clock.monotonic()
        now_us = int(self._clock.now().timestamp() * 1_000_000)
        asked = self._woken | self._unvisited
        due = {tenant_id for tenant_id, _ in self._memories.due(now_us)} - asked
        for tenant_id in [*asked, *due]:
            partition = self._ownership.partition_of(tenant_id)
            tenant = self._evaluated(tenant_id)
            if partition is None or tenant is None:
                self._done(tenant_id)
            elif self._retry_at.get(tenant_id, now) <= now:
                yield tenant, partition, tenant_id in due

    def _evaluated(self, tenant_id: TenantId) -> TenantEntry | None:
        try:
            tenant = self._catalog.tenant(tenant_id)
        except UnknownTenant:
            return None
        return tenant if tenant.state is TenantState.ACTIVE and MODULE in tenant.modules else None

    def _done(self, tenant_id: TenantId) -> None:
        self._woken.discard(tenant_id)
        self._unvisited.discard(tenant_id)
        self._retry_at.pop(tenant_id, None)

    async def _guarded(
        self, gate: asyncio.Semaphore, tenant: TenantEntry, partition: int, *, time_passes: bool
    ) -> None:
        """One tenant's failure is its own: its memory is dropped, and it is tried again later."""
        tenant_id = tenant.tenant_id
        async with gate:
            token = set_log_fields({"tenant": str(tenant_id)})
            woken = tenant_id in self._woken
            self._woken.discard(tenant_id)
            try:
                await self._advance(tenant, partition, time_passes=time_passes)
            except Fenced:
                self._ownership.lost(partition)
                self._done(tenant_id)
            except Exception as error:  # noqa: BLE001 - whatever it was, the others go on
                self._logger.warning("timers of a tenant did not run", error=repr(error))
                self._memories.drop(tenant_id)
                (self._woken if woken else self._unvisited).add(tenant_id)
                self._retry_at[tenant_id] = self._clock.monotonic() + self._settings.retry_s
            else:
                self._unvisited.discard(tenant_id)
                self._retry_at.pop(tenant_id, None)
            finally:
                reset_log_fields(token)

    async def _advance(self, tenant: TenantEntry, partition: int, *, time_passes: bool) -> None:
        tenant_id = tenant.tenant_id
        epoch = self._ownership.epoch(partition)
        if epoch is None:
            return
        if tenant_id in self._unvisited:
            loaded = self._memories.get(tenant_id) is not None
            if loaded or not await self._tenancy.run(tenant_id, self._states.exists, write=False):
                return

        async def work(tx: UnitOfWork) -> None:
            await self._fence.hold(tx, epoch)
            await self._evaluation.advance(tx, tenant.slug, partition, time_passes=time_passes)

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
