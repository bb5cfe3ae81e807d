"""Does what an operation is for: provisions a tenant, moves its fence, or erases it; one attempt.

What databases are to become is decided by tenancy's pure plan and carried out by its executor; the last
transaction changes tenant and operation together. It does not matter where an attempt dies: the next one
observes what is there and goes on. The steps are for people: they are written once a second while an attempt
lasts, and with its end.

The executor's actions are done under the lease. A transaction of the catalogue is not: what a former holder
of the lease would still write is refused: the operation is read again under the tenant's lock, and has ended.
Locks are taken in the order of `ports.Tenants`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import asyncpg

from tlsy.runtime.logging import get_logger
from tlsy.tenancy.cluster import MAINTENANCE_DATABASE
from tlsy.tenancy.context import PLATFORM, IsolationMode, Placement, TenantState
from tlsy.tenancy.errors import (
    DatabaseBusy,
    LeaseLost,
    OutboxNotDrained,
    PlacementFull,
    PlacementUnavailable,
    UnknownCluster,
)
from tlsy.tenancy.migrations import MigrationFailed
from tlsy.tenancy.provisioning import (
    Action,
    CreateDatabase,
    CreateSchema,
    DesiredState,
    DesiredTenant,
    SetFence,
)
from tlsy.tenant_registry.domain.kinds import Verb
from tlsy.tenant_registry.domain.operation import (
    Outcome,
    attempt_failed,
    step_done,
    succeeded,
    waiting_until,
)
from tlsy.tenant_registry.domain.tenant import CLUSTER_FULL, activated, deleted, erasing, failed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tlsy.tenancy.unit_of_work import UnitOfWork
    from tlsy.tenant_registry.domain.operation import Operation, RetryPolicy
    from tlsy.tenant_registry.domain.tenant import Tenant
    from tlsy.tenant_registry.handlers.catalogue import Catalogue

_WRITE_STEPS_S: Final = 1.0
_FENCE_WENT_BACK: Final = "TL003"
_REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (PlacementUnavailable, "CLUSTER_UNREACHABLE"),
    (PlacementFull, CLUSTER_FULL),
    (OutboxNotDrained, "OUTBOX_NOT_DRAINED"),
    (UnknownCluster, "CLUSTER_NOT_CONFIGURED"),
    (MigrationFailed, "MIGRATION_FAILED"),
    (asyncpg.PostgresError, "DATABASE_ERROR"),
    (DatabaseBusy, "DATABASE_ERROR"),
    (TimeoutError, "TIMED_OUT"),
)


class Placements(Protocol):
    """Makes placements what they should be; `tlsy.tenancy.executor.Executor`."""

    async def converge(
        self, desired: DesiredTenant, progress: Callable[[Action], Awaitable[None]] | None = None
    ) -> tuple[Action, ...]:
        """Observe, plan and execute until nothing is left to do."""
        ...


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why an attempt failed; `away`: where connecting failed, if it did."""

    reason: str
    message: str
    retryable: bool
    away: Placement | None = None


class RunOperation:
    """One attempt at one operation. A failure is written to the operation."""

    def __init__(
        self,
        catalogue: Catalogue,
        retries: RetryPolicy,
        jitter: Callable[[], float],
        attempt_timeout_s: float,
    ) -> None:
        self._catalogue = catalogue
        self._retries = retries
        self._jitter = jitter
        self._attempt_timeout_s = attempt_timeout_s
        self._logger = get_logger("registry.provisioner")

    async def run(self, operation: Operation, placements: Placements) -> None:
        """Attempt it.

        Raises LeaseLost, having changed nothing more, and whatever keeps a failure from being written.
        """
        attempt = _Attempt(self._catalogue, placements, operation)
        try:
            async with asyncio.timeout(self._attempt_timeout_s):
                await attempt.run()
        except LeaseLost:
            raise
        except Exception as error:
            failure = _failure_of(error)
            self._logger.warning(
                "attempt failed",
                tenant=operation.target_slug,
                verb=str(operation.verb),
                reason=failure.reason,
                exc_info=error if failure.reason == "PROVISIONING_ERROR" else None,
            )
            await self._failed(attempt.operation, failure)

    async def _failed(self, operation: Operation, failure: _Failure) -> None:
        catalogue = self._catalogue
        now = catalogue.clock.now()
        tried = attempt_failed(
            operation,
            reason=failure.reason,
            message=failure.message,
            retryable=failure.retryable,
            policy=self._retries,
            now=now,
            jitter=self._jitter(),
        )
        async with catalogue.writing() as tx:
            line = await _lock(catalogue, tx, operation)
            if _is_of_cluster(failure.away, line[-1]):
                await catalogue.places.note_reachable(tx, line[-1].cluster_id, now, reachable=False)
            if failure.reason == CLUSTER_FULL:
                await catalogue.places.note_schemas_full(tx, line[-1].cluster_id, full=True)
            if tried.outcome is Outcome.FAILED and line[-1].phase is TenantState.PROVISIONING:
                tenant = await catalogue.tenants.save(tx, failed(line[-1], failure.reason, now))
                catalogue.effects.tenant_changed(tx, tenant, "failed")
                catalogue.effects.audited_duty(tx, "provision", tenant, {"failed": failure.reason})
            await catalogue.operations.save(tx, tried, now)


class _Attempt:
    """The operation as far as it has come in this attempt."""

    def __init__(self, catalogue: Catalogue, placements: Placements, operation: Operation) -> None:
        self._catalogue = catalogue
        self._placements = placements
        self.operation = operation
        self._written_at = catalogue.clock.monotonic()
        self._placed = False

    async def run(self) -> None:
        async with self._catalogue.tenancy.control(PLATFORM, write=False) as tx:
            tenant = await self._catalogue.tenants.by_id(tx, self.operation.target_id)
        if tenant is None:
            raise AssertionError("tenants are never removed from the catalogue")
        match self.operation.verb:
            case Verb.CREATE:
                await self._create(tenant)
            case Verb.FENCE:
                await self._move_fence(tenant)
            case Verb.DELETE:
                await self._delete(tenant)

    async def _create(self, tenant: Tenant) -> None:
        catalogue = self._catalogue
        self._placed = tenant.placed
        await self._placements.converge(_desired(tenant, DesiredState.ACTIVE), self._creating)
        async with catalogue.writing() as tx:
            now = catalogue.clock.now()
            line = await self._lock(tx, tenant)
            if self.operation.attempts:
                await catalogue.places.note_reachable(tx, tenant.cluster_id, now, reachable=True)
            changed = activated(line[-1], line[-2] if len(line) > 1 else None, now)
            saved = await catalogue.tenants.save(tx, changed)
            catalogue.effects.tenant_changed(tx, saved, "activated")
            catalogue.effects.audited_duty(tx, "provision", saved, {"epoch": saved.epoch})
            catalogue.effects.used(tx, saved, "tenants.activated", 1)
            if saved.epoch != tenant.epoch:
                await catalogue.start(tx, Verb.FENCE, owner=None, target=saved, now=now)
            await self._end(tx)

    async def _creating(self, action: Action) -> None:
        """Steps that lie before `action` are done; that something is made is known before the first one."""
        if not self._placed:
            async with self._catalogue.writing() as tx:
                await self._catalogue.tenants.note_placed(tx, self.operation.target_id)
            self._placed = True
        if isinstance(action, CreateDatabase | CreateSchema):
            return
        await self._done("place", "migrate") if isinstance(action, SetFence) else await self._done("place")

    async def _move_fence(self, tenant: Tenant) -> None:
        ahead: asyncpg.PostgresError | None = None
        if tenant.state in {TenantState.ACTIVE, TenantState.SUSPENDED}:
            try:
                await self._placements.converge(_desired(tenant, DesiredState(tenant.state)))
            except asyncpg.PostgresError as error:
                if error.sqlstate != _FENCE_WENT_BACK:
                    raise
                ahead = error
        async with self._catalogue.writing() as tx:
            line = await _lock(self._catalogue, tx, self.operation)
            # Either a newer change has moved it further already, or it knows what the catalogue does not.
            if ahead is not None and line[-1].epoch == tenant.epoch:
                raise ahead
            await self._end(tx)

    async def _delete(self, tenant: Tenant) -> None:
        catalogue = self._catalogue
        if not self.operation.is_done("retain"):
            now = catalogue.clock.now()
            erase_at = max(now, tenant.erase_after or now)
            if erase_at > now or self.operation.moves_fence:
                closed = _desired(tenant, DesiredState.SUSPENDED, placed=tenant.placed)
                await self._placements.converge(closed)
                self.operation = waiting_until(step_done(self.operation, "fence"), erase_at)
                async with catalogue.writing() as tx:
                    await self._lock(tx, tenant)
                    await catalogue.operations.save(tx, self.operation, now)
                return
            async with catalogue.writing() as tx:
                line = await self._lock(tx, tenant)
                tenant = await catalogue.tenants.save(tx, erasing(line[-1], now))
                catalogue.effects.tenant_changed(tx, tenant, "deleting")
                self.operation = step_done(self.operation, "retain")
                await catalogue.operations.save(tx, self.operation, now)
        await self._placements.converge(_desired(tenant, DesiredState.ERASED, placed=tenant.placed))
        await self._done("erase", "verify")
        async with catalogue.writing() as tx:
            line = await self._lock(tx, tenant)
            await catalogue.places.give_room_back(tx, tenant.cluster_id)
            if tenant.isolation_mode is IsolationMode.SCHEMA:
                await catalogue.places.note_schemas_full(tx, tenant.cluster_id, full=False)
            saved = await catalogue.tenants.save(tx, deleted(line[-1], catalogue.clock.now()))
            catalogue.effects.tenant_changed(tx, saved, "deleted")
            catalogue.effects.erased(tx, saved, self.operation.cause.principal)
            await self._end(tx)

    async def _done(self, *names: str) -> None:
        """Note that these steps are done; write it if the last time is long enough ago."""
        for name in names:
            self.operation = step_done(self.operation, name)
        clock = self._catalogue.clock
        if clock.monotonic() - self._written_at < _WRITE_STEPS_S:
            return
        self._written_at = clock.monotonic()
        async with self._catalogue.writing() as tx:
            await self._catalogue.operations.save(tx, self.operation, clock.now())

    async def _lock(self, tx: UnitOfWork, tenant: Tenant) -> Sequence[Tenant]:
        """See `_lock`; LeaseLost also if the tenant's life has gone on since this attempt saw it."""
        line = await _lock(self._catalogue, tx, self.operation)
        if (line[-1].phase, line[-1].epoch) != (tenant.phase, tenant.epoch):
            raise LeaseLost(f"{tenant.slug} is {line[-1].phase} at epoch {line[-1].epoch} by now")
        return line

    async def _end(self, tx: UnitOfWork) -> None:
        await self._catalogue.operations.save(tx, succeeded(self.operation), self._catalogue.clock.now())


async def _lock(catalogue: Catalogue, tx: UnitOfWork, operation: Operation) -> Sequence[Tenant]:
    """The operation's tenant and its ancestors, topmost first, locked.

    Raises LeaseLost if another provisioner has ended the operation.
    """
    line = await catalogue.tenants.lock_line(tx, operation.target_id)
    now = await catalogue.operations.get(tx, operation.operation_id)
    if now is None or now.outcome is not Outcome.RUNNING:
        raise LeaseLost(f"the operation on {operation.target_slug} was ended by another provisioner")
    return line


def _is_of_cluster(away: Placement | None, tenant: Tenant) -> bool:
    """Whether what did not answer stands for the tenant's cluster, and not for a single tenant's database."""
    common = set() if tenant.isolation_mode is IsolationMode.DEDICATED else {tenant.database}
    return (
        away is not None
        and away.cluster == tenant.cluster_id
        and away.database in {MAINTENANCE_DATABASE, *common}
    )


def _desired(tenant: Tenant, state: DesiredState, *, placed: bool = True) -> DesiredTenant:
    return DesiredTenant(
        tenant_id=tenant.tenant_id,
        mode=tenant.isolation_mode,
        placement=Placement(tenant.cluster_id, tenant.database, tenant.schema),
        epoch=tenant.epoch,
        state=state,
        placed=placed,
    )


def _failure_of(error: Exception) -> _Failure:
    text = f"{error.sqlstate}: {error}" if isinstance(error, asyncpg.PostgresError) else str(error)
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return _Failure(
                reason,
                text,
                retryable=not isinstance(error, PlacementFull),
                away=error.placement if isinstance(error, PlacementUnavailable) and error.refused else None,
            )
    return _Failure("PROVISIONING_ERROR", type(error).__name__, retryable=True)
