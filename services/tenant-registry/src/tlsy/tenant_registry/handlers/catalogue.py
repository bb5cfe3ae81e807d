"""The catalogue as handlers work with it: whole families of tenants, locked, changed and saved together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tlsy.rpc.errors import FailedPrecondition, NotFound, Unavailable
from tlsy.runtime.ids import PLATFORM_TENANT_ID
from tlsy.runtime.tracing import ORIGIN, current_traceparent
from tlsy.tenancy.context import PLATFORM, TenantState
from tlsy.tenancy.errors import NotWritable
from tlsy.tenant_registry.domain.kinds import Verb
from tlsy.tenant_registry.domain.operation import Cause, started
from tlsy.tenant_registry.domain.tenant import cascade

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime
    from uuid import UUID

    from tlsy.rpc.call import Call
    from tlsy.runtime.clock import Clock
    from tlsy.runtime.ids import TenantId, Uuid7
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork
    from tlsy.tenant_registry.domain.operation import Operation
    from tlsy.tenant_registry.domain.tenant import Tenant
    from tlsy.tenant_registry.handlers.effects import Effects
    from tlsy.tenant_registry.ports import Operations, Places, Signals, Tenants

#: Left of a call's deadline for the answer itself.
_ANSWER_S: Final = 0.5
_RETRY_AFTER_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A tenant, its parent, and all that depend on it, locked in a transaction."""

    tenant: Tenant
    parent: Tenant | None
    descendants: Sequence[Tenant]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """The tables and what every handler needs besides. Holds no state."""

    tenancy: Tenancy
    tenants: Tenants
    places: Places
    operations: Operations
    signals: Signals
    effects: Effects
    clock: Clock
    ids: Uuid7

    def writing(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """A transaction that may change any tenant's rows.

        A change of one tenant also writes what its ancestors see of it and takes a place in the sequence of
        changes, so it is the platform's, whoever asked for it; that the caller may ask is decided before.
        """
        return self.tenancy.control(PLATFORM, write=True)

    def reading(self, call: Call) -> AbstractAsyncContextManager[UnitOfWork]:
        """A transaction that sees what the caller may: all for the platform, else the tenant's rows."""
        scope = PLATFORM if call.of_platform else call.required_tenant().context
        return self.tenancy.control(scope, write=False)

    async def get(self, tx: UnitOfWork, slug: str) -> Tenant:
        """Raises NotFound: TENANT_NOT_FOUND."""
        tenant = await self.tenants.by_slug(tx, slug)
        if tenant is None:
            raise _not_found()
        return tenant

    async def lock(self, tx: UnitOfWork, call: Call, slug: str) -> Family:
        """Raises NotFound: TENANT_NOT_FOUND; NotWritable: as `refuse_closed`."""
        found = await self.get(tx, slug)
        line = await self.tenants.lock_line(tx, found.tenant_id)
        if not line or line[-1].state is TenantState.DELETED:
            raise _not_found()
        refuse_closed(call, line[-1])
        return Family(
            tenant=line[-1],
            parent=line[-2] if len(line) > 1 else None,
            descendants=await self.tenants.lock_descendants(tx, found.tenant_id),
        )

    async def save(self, tx: UnitOfWork, call: Call, family: Family, changed: Tenant, cause: str) -> Tenant:
        """Save the changed tenant and what follows from it below; tell everyone, those below in their logs.

        Whose epoch grew gets its fence moved by an operation of this transaction, so that the fence follows
        the catalogue also if this process dies now.
        """
        before = {each.tenant_id: each for each in (family.tenant, *family.descendants)}
        now = self.clock.now()
        first: Tenant | None = None
        for each in (changed, *cascade(changed, family.descendants, now)):
            saved = await self.tenants.save(tx, each)
            if first is None:
                first = saved
            else:
                # The call's own record is in the log of the tenant above, which this one does not read.
                self.effects.audited_duty(tx, "inherit", saved, {"cause": cause, "state": str(saved.state)})
            self.effects.tenant_changed(tx, saved, cause)
            if saved.epoch != before[saved.tenant_id].epoch:
                await self.start(tx, Verb.FENCE, owner=call.tenant_id, target=saved, now=now)
        if first is None:
            raise AssertionError("the changed tenant itself is saved first")
        return first

    async def start(
        self, tx: UnitOfWork, verb: Verb, *, owner: TenantId | None, target: Tenant, now: datetime
    ) -> Operation:
        """Begin an operation on `target`, readable by `owner` (None: the platform)."""
        operation = started(
            verb,
            operation_id=self.ids(),
            owner_id=owner or PLATFORM_TENANT_ID,
            target_id=target.tenant_id,
            target_slug=target.slug,
            now=now,
            cause=_cause(),
        )
        await self.operations.add(tx, operation)
        return operation

    async def fences_moved(self, call: Call, slug: str) -> None:
        """Return once the fences of the tenant and of all below it are where the catalogue says.

        Raises:
            Unavailable: FENCE_PENDING; a database does not answer. The change stands, its fence follows as
                soon as the database answers; until then its writers may still be in.
        """
        pending = await self._moving_fences(slug)
        while pending:
            with self.signals.watch(pending) as changed:
                pending = await self._moving_fences(slug)
                if pending and not await self.wait(changed, call):
                    raise Unavailable(
                        "FENCE_PENDING",
                        "The change stands, but a database that it concerns does not answer yet. Send again.",
                        retry_after_s=_RETRY_AFTER_S,
                    )

    async def wait(self, changed: asyncio.Event, call: Call, at_most_s: float = 3600.0) -> bool:
        """Whether the event was set, by `at_most_s` and shortly before the call's deadline."""
        left_s = call.deadline - self.clock.monotonic() - _ANSWER_S
        try:
            async with asyncio.timeout(min(left_s, at_most_s)):
                return await changed.wait()
        except TimeoutError:
            return False

    async def _moving_fences(self, slug: str) -> Collection[UUID]:
        async with self.tenancy.control(PLATFORM, write=False) as tx:
            tenant = await self.tenants.by_slug(tx, slug)
            if tenant is None:
                return ()
            running = await self.operations.running(tx, Verb.FENCE, tenant.tenant_id)
        return [operation.operation_id for operation in running]


def _not_found() -> NotFound:
    return NotFound("TENANT_NOT_FOUND", "There is no such tenant.")


def refuse_closed(call: Call, tenant: Tenant) -> None:
    """Raise NotWritable for a tenant's own change while it is suspended, as everywhere else.

    The catalogue writes in the platform's scope, where no fence would stop it.
    """
    if not call.of_platform and tenant.state is not TenantState.ACTIVE:
        raise NotWritable(f"{tenant.slug} is {tenant.state}")


def refuse_platform(tenant: Tenant) -> None:
    """Raise FailedPrecondition for the platform's own tenant, without which nobody could act any more."""
    if tenant.tenant_id == PLATFORM_TENANT_ID:
        raise FailedPrecondition("PLATFORM_TENANT", "The platform's own tenant is not suspended or deleted.")


def _cause() -> Cause:
    """What the running call or operation goes back to."""
    origin = ORIGIN.get(None)
    if origin is None:
        return Cause()
    return Cause(
        principal=origin.principal or "",
        correlation_id=origin.correlation_id,
        traceparent=current_traceparent(),
    )
