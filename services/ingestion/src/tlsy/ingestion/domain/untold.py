"""What this replica counted and the audit log may not know yet, so that nobody else is asked about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from tlsy.runtime.ids import TenantId

#: Minutes and principals of a tenant whose database is away for long; what is more is not counted.
_MAX_DEFERRED: Final = 1_000


class Sender(NamedTuple):
    """Who sent in which minute."""

    minute: datetime
    principal: str


class Deferred(NamedTuple):
    """Batches that were put off as a whole, and their events."""

    batches: int
    events: int


class Untold:
    """Minutes with counts by tenant, and batches deferred as a whole, which no transaction counted.

    Those are in memory alone until `take_deferred`: a sender that is over its rate must not cost a
    transaction per call. A crash loses the last ones; they say nothing about stored events.
    """

    __slots__ = ("_deferred", "_minutes")

    def __init__(self) -> None:
        self._minutes: dict[TenantId, set[datetime]] = {}
        self._deferred: dict[TenantId, dict[Sender, Deferred]] = {}

    def counted(self, tenant_id: TenantId, now: datetime) -> None:
        """A transaction counted a batch."""
        minute = now.replace(second=0, microsecond=0)
        self._minutes.setdefault(tenant_id, set()).add(minute)

    def deferred(self, tenant_id: TenantId, principal: str, events: int, now: datetime) -> None:
        """A batch was put off as a whole."""
        self.counted(tenant_id, now)
        sender = Sender(now.replace(second=0, microsecond=0), principal)
        self.give_back(tenant_id, {sender: Deferred(1, events)})

    def due(self, before: datetime) -> frozenset[TenantId]:
        """Whose minutes, all before `before`, may be told."""
        return frozenset(
            tenant_id for tenant_id, minutes in self._minutes.items() if any(m < before for m in minutes)
        )

    def told(self, tenant_id: TenantId, before: datetime) -> None:
        """All minutes before `before` are told."""
        minutes = {minute for minute in self._minutes.pop(tenant_id, ()) if minute >= before}
        if minutes:
            self._minutes[tenant_id] = minutes

    def forget(self, tenant_id: TenantId) -> None:
        """There is nobody to tell it of."""
        self._minutes.pop(tenant_id, None)
        self._deferred.pop(tenant_id, None)

    def take_deferred(self, tenant_id: TenantId) -> Mapping[Sender, Deferred]:
        """What is to be counted now, or given back."""
        return self._deferred.pop(tenant_id, {})

    def give_back(self, tenant_id: TenantId, deferred: Mapping[Sender, Deferred]) -> None:
        """It could not be counted."""
        kept = self._deferred.setdefault(tenant_id, {})
        for sender, more in deferred.items():
            known = kept.get(sender)
            if known is not None:
                kept[sender] = Deferred(known.batches + more.batches, known.events + more.events)
            elif len(kept) < _MAX_DEFERRED:
                kept[sender] = more
