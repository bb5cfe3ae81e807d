"""The fence of a tenant's state in one consumer group.

Whoever was assigned the partition last has the highest epoch. Its first transaction raises the fence; from
then on a former owner, which may not know yet, cannot commit. A transaction that passed holds the row, so the
next owner's first one waits for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.eventlog.errors import Fenced
from tlsy.eventlog.statements import statements
from tlsy.tenancy.unit_of_work import uuid7_day

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from tlsy.tenancy.unit_of_work import UnitOfWork


class PartitionFence:
    """Guards the transactions of one service's group, those of deliveries and those of timers."""

    __slots__ = ("_group", "_hold", "_hold_and_note", "_raise")

    def __init__(self, package: str, group: str) -> None:
        sql = statements(package)
        self._group = group
        self._hold = sql["hold_fence"]
        self._hold_and_note = sql["hold_and_note"]
        self._raise = sql["raise_fence"]

    async def hold(self, tx: UnitOfWork, epoch: int) -> None:
        """Let `tx` commit only while no later assignment than `epoch` has touched its tenant.

        Raises Fenced.
        """
        args = (tx.tenant_id, self._group, epoch)
        if await tx.fetchval(self._hold, *args) is None:
            await tx.execute(self._raise, *args)
            if await tx.fetchval(self._hold, *args) is None:
                raise Fenced(self._group, epoch)

    async def first_deliveries(self, tx: UnitOfWork, epoch: int, events: Sequence[UUID]) -> set[UUID]:
        """Hold the fence, and note that `tx` applies these events; answers those that it is the first to.

        Raises Fenced, and CheckViolationError where the inbox has no partition for the day of one.
        """
        args = (tx.tenant_id, self._group, epoch, [uuid7_day(event) for event in events], list(events))
        (row,) = await tx.fetch(self._hold_and_note, *args)
        if not row["held"]:
            await self.hold(tx, epoch)
            (row,) = await tx.fetch(self._hold_and_note, *args)
        return set(row["first"])
