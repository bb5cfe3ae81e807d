"""Migrating a fleet of placements, ring after ring.

A placement that fails stays behind and is named; the others go on. After each ring the caller says whether to
proceed, e.g. because the first ring is to be watched for a day. To resume is to roll out again: version rows
say what is done.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlsy.tenancy.errors import TenancyError
from tlsy.tenancy.migrations import MigrationFailed, migrate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tlsy.tenancy.context import Placement
    from tlsy.tenancy.database import Databases
    from tlsy.tenancy.migrations import Applied, Component


@dataclass(frozen=True, slots=True)
class Target:
    """One placement and what belongs into it."""

    placement: Placement
    components: tuple[Component, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one placement; `error` is None if it is at its heads."""

    placement: Placement
    applied: tuple[Applied, ...]
    error: Exception | None


async def roll_out(
    databases: Databases,
    rings: Sequence[Sequence[Target]],
    proceed: Callable[[Sequence[Outcome]], Awaitable[bool]],
    *,
    parallel: int = 4,
) -> tuple[Outcome, ...]:
    """Migrate each ring, `parallel` placements at a time; answers the outcomes so far.

    After each ring but the last `proceed` gets its outcomes; where it answers False the rest is left alone.
    """
    slots = asyncio.Semaphore(parallel)

    async def one(target: Target) -> Outcome:
        async with slots:
            try:
                async with databases.acquire(target.placement) as connection:
                    applied = await migrate(connection, target.components)
            except (TenancyError, MigrationFailed, ValueError) as error:
                return Outcome(target.placement, (), error)
            return Outcome(target.placement, applied, None)

    outcomes: list[Outcome] = []
    for position, ring in enumerate(rings, 1):
        of_ring = await asyncio.gather(*(one(target) for target in ring))
        outcomes += of_ring
        if position < len(rings) and not await proceed(of_ring):
            break
    return tuple(outcomes)
