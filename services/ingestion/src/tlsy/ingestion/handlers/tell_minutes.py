"""Tells the audit log what each principal sent, a record per minute: IngestEvents is audited in summary.

The minutes are rows that the batches' own transactions count up, so nothing is lost with a replica; the row
and the record change in one transaction, so nothing is told twice. A minute is told once it is over.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import asyncpg

from tlsy.contracts.audit_log.events.v1.events_pb2 import AuditRecorded
from tlsy.contracts.cloudevents import CloudEvent
from tlsy.contracts.events import audit_recorded
from tlsy.ingestion.ports import Tally
from tlsy.runtime.logging import get_logger
from tlsy.tenancy.errors import TenancyError, UnknownTenant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from tlsy.ingestion.domain.untold import Deferred, Sender, Untold
    from tlsy.ingestion.ports import EventStore, PrincipalMinute
    from tlsy.runtime.clock import Clock
    from tlsy.runtime.ids import TenantId, Uuid7
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork

METHOD: Final = "tlsy.ingestion.v1.IngestionService/IngestEvents"
_OVER_AFTER: Final = timedelta(minutes=2)
_BATCH: Final = 500
#: Of all tenants, in search of what a replica left that is gone.
_FULL_ROUND_S: Final = 600.0


class TellMinutes:
    """Looks at the tenants that this replica has something to tell of, and now and then at all."""

    def __init__(
        self,
        *,
        tenancy: Tenancy,
        store: EventStore,
        clock: Clock,
        ids: Uuid7,
        untold: Untold,
        everyone: Callable[[], Iterable[TenantId]],
        every_s: float,
    ) -> None:
        self._tenancy = tenancy
        self._store = store
        self._clock = clock
        self._ids = ids
        self._untold = untold
        self._everyone = everyone
        self._every_s = every_s
        self._logger = get_logger("ingestion.audit")

    async def run(self, stopping: asyncio.Event) -> None:
        """Tells until `stopping` is set."""
        full_at_s = self._clock.monotonic() + self._every_s
        while not stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), self._every_s)
            if stopping.is_set():
                return
            full = self._clock.monotonic() >= full_at_s
            if full:
                full_at_s = self._clock.monotonic() + _FULL_ROUND_S
            await self._round(frozenset(self._everyone()) if full else frozenset())

    async def _round(self, everyone: frozenset[TenantId]) -> None:
        """Tells what is due of each tenant; one whose database fails holds up no other."""
        for tenant_id in self._untold.due(self._clock.now() - _OVER_AFTER) | everyone:
            try:
                while await self.tell(tenant_id) == _BATCH:
                    pass
            except UnknownTenant:
                # It was deleted since.
                self._untold.forget(tenant_id)
            except (TenancyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                self._logger.info("minutes not told yet", tenant_id=str(tenant_id), error=str(error))

    async def tell(self, tenant_id: TenantId) -> int:
        """Counts what was deferred and tells one batch of a tenant's minutes; how many there were."""
        before = self._clock.now() - _OVER_AFTER
        deferred = self._untold.take_deferred(tenant_id)
        try:
            told = await self._tenancy.run(tenant_id, lambda tx: self._tell(tx, before, deferred), write=True)
        except BaseException:
            self._untold.give_back(tenant_id, deferred)
            raise
        if told < _BATCH:
            self._untold.told(tenant_id, before)
        return told

    async def _tell(self, tx: UnitOfWork, before: datetime, deferred: Mapping[Sender, Deferred]) -> int:
        for sender, put_off in deferred.items():
            tally = Tally(deferred=put_off.events)
            await self._store.add_counts(tx, sender.principal, tally, sender.minute, put_off.batches)
        minutes = await self._store.tell_minutes(tx, before, _BATCH)
        for minute in minutes:
            tx.publish(self._record(tx, minute))
        return len(minutes)

    def _record(self, tx: UnitOfWork, minute: PrincipalMinute) -> CloudEvent:
        record_id = self._ids()
        record = AuditRecorded(
            record_id=str(record_id),
            tenant_id=str(tx.tenant_id),
            method=METHOD,
            principal=minute.principal,
            outcome="OK",
            count=minute.calls,
        )
        record.time.FromDatetime(minute.minute)
        record.details.update(
            {
                "accepted": minute.tally.accepted,
                "duplicates": minute.tally.duplicates,
                "rejected": minute.tally.rejected,
                "deferred": minute.tally.deferred,
            }
        )
        return CloudEvent(
            id=record_id,
            type=audit_recorded("ingestion"),
            source="ingestion",
            tenant_id=tx.tenant_id,
            epoch=tx.epoch,
            time=self._clock.now(),
            key=tx.tenant_id.hex,
            data=record.SerializeToString(),
        )
