"""Bringing the placements of single tenants to their heads after an upgrade, under the provisioner's lease.

A placement that fails stays behind and is named; the others go on. To go on later is to roll out again:
version rows say what is done. Rings are hundredths of all tenants: a target that is held is only looked at.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncpg

from tlsy.tenancy.errors import LeaseLost, TenancyError
from tlsy.tenancy.lease import hold
from tlsy.tenancy.migrations import MigrationFailed, migrate, pending, versions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tlsy.runtime.ids import TenantId
    from tlsy.tenancy.context import Placement
    from tlsy.tenancy.database import Databases
    from tlsy.tenancy.lease import Lease
    from tlsy.tenancy.migrations import Applied, Component

#: TimeoutError is an OSError.
_FAILURES: Final = (
    TenancyError,
    MigrationFailed,
    ValueError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    OSError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One tenant's placement and what belongs into it; `held`: not to be migrated yet."""

    tenant_id: TenantId
    placement: Placement
    components: tuple[Component, ...]
    held: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one target; without `error` it is at its heads, or behind because it was held."""

    target: Target
    behind: bool
    applied: tuple[Applied, ...] = ()
    error: Exception | None = None


def hundredth(tenant_id: TenantId) -> int:
    """0 to 99, the same each time: in which hundredth of all tenants this one is. Ids end at random."""
    return tenant_id.int % 100


async def roll_out(
    databases: Databases, targets: Sequence[Target], *, control: Placement, lease: Lease, parallel: int = 2
) -> tuple[Outcome, ...]:
    """Migrate what is behind and not held; answers what became of each target.

    `parallel` databases at a time, the placements of one after the other, since they share a lock. Each is
    migrated while the lease (in the `control` database) is held. Raises LeaseLost, and nothing else.
    """
    slots = asyncio.Semaphore(parallel)
    groups: dict[tuple[str, str], list[Target]] = {}
    for target in targets:
        groups.setdefault((target.placement.cluster, target.placement.database), []).append(target)

    async def database(group: Sequence[Target]) -> list[Outcome]:
        async with slots:
            try:
                async with databases.acquire(group[0].placement) as connection:
                    current = await versions(connection)
            except _FAILURES as error:
                return [Outcome(target, behind=True, error=error) for target in group]
            return [await one(target, current) for target in group]

    async def one(target: Target, current: Mapping[tuple[str, str], str]) -> Outcome:
        try:
            behind = any(pending(c, current.get((c.name, c.schema))) for c in target.components)
            if target.held or not behind:
                return Outcome(target, behind)
            async with (
                databases.acquire(control) as at_control,
                hold(at_control, lease),
                databases.acquire(target.placement) as connection,
            ):
                return Outcome(target, behind=False, applied=await migrate(connection, target.components))
        except _FAILURES as error:
            return Outcome(target, behind=True, error=error)

    outcomes = [each for group in await asyncio.gather(*map(database, groups.values())) for each in group]
    for outcome in outcomes:
        if isinstance(outcome.error, LeaseLost):
            raise outcome.error
    return tuple(outcomes)
