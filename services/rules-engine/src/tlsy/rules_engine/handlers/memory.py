"""The tenants whose engines are in memory.

An engine is a copy of rows in the tenant's database: it carries the stamp of the transaction that wrote them
last, so that whatever came in between (a roll-back, an unknown outcome, another owner) is noticed at the next
transaction, and the engine is made anew. Dropping one is therefore always safe.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tlsy.rules_engine.domain.turn import Counters

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from uuid import UUID

    from tlsy.rules_engine.domain.ast import Rule, VersionId
    from tlsy.rules_engine.domain.compiler import CompiledRuleSet
    from tlsy.rules_engine.domain.engine import Engine
    from tlsy.rules_engine.handlers.observing import FieldObserver
    from tlsy.rules_engine.handlers.refreshes import Refreshes
    from tlsy.runtime.ids import TenantId


@dataclass(slots=True, kw_only=True)
class TenantMemory:
    """One tenant.

    Attributes:
        version: of the rule set that `compiled` is; -1 while the engine has versions that are not live.
        stamp: of the transaction that wrote what the engine holds.
        refreshes: firings that are not yet counted in the incidents.
        counted: what the engine had left out when that was exported last.
        changed: whether the deadline may have moved since it was asked for.
    """

    partition: int
    engine: Engine
    compiled: CompiledRuleSet
    rules: Mapping[VersionId, Rule]
    version: int
    stamp: UUID
    observer: FieldObserver
    refreshes: Refreshes
    counted: Counters = field(default_factory=Counters)
    changed: bool = True
    deadline_us: int | None = None

    def due_us(self) -> int | None:
        """When, in processing time, there is something to do though no event comes."""
        if self.changed:
            self.deadline_us = self.engine.next_deadline_us()
            self.changed = False
        found = [self.deadline_us, self.observer.due_us(), self.refreshes.due_us()]
        return min((due for due in found if due is not None), default=None)


class Memories:
    """At most `limit` tenants; of those that had to go, when they are due is kept.

    Of both, since when the tenant has been followed: that it is loaded again is no gap in that.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._loaded: OrderedDict[TenantId, TenantMemory] = OrderedDict()
        self._asleep: dict[TenantId, int] = {}
        self._followed: dict[TenantId, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._loaded)

    def get(self, tenant_id: TenantId) -> TenantMemory | None:
        """The tenant's, and now the most recently used."""
        memory = self._loaded.get(tenant_id)
        if memory is not None:
            self._loaded.move_to_end(tenant_id)
        return memory

    def put(self, tenant_id: TenantId, memory: TenantMemory) -> None:
        """Keep it; the least recently used one goes when there are too many."""
        self._asleep.pop(tenant_id, None)
        self._loaded[tenant_id] = memory
        self._loaded.move_to_end(tenant_id)
        if len(self._loaded) > self._limit:
            gone, least = self._loaded.popitem(last=False)
            due_us = least.due_us()
            if due_us is not None:
                self._asleep[gone] = due_us

    def followed_since_us(self, tenant_id: TenantId, partition: int, now_us: int) -> int:
        """Since when nothing that came of the tenant was missed; from now on, if it was not followed."""
        place, since_us = self._followed.get(tenant_id, (None, 0))
        if place != partition:
            since_us = now_us
            self._followed[tenant_id] = (partition, now_us)
        return since_us

    def followed(self) -> tuple[TenantId, ...]:
        """Tenants of whom nothing was missed of late."""
        return tuple(self._followed)

    def drop(self, tenant_id: TenantId) -> None:
        """The engine is not to be used any more; the tenant is loaded again at once."""
        self._loaded.pop(tenant_id, None)
        self._asleep.pop(tenant_id, None)

    def lose(self, tenant_id: TenantId) -> None:
        """Forget the tenant: what comes of it from now on may be missed."""
        self.drop(tenant_id)
        self._followed.pop(tenant_id, None)

    def lose_partition(self, partition: int) -> None:
        """Forget every tenant of a partition."""
        mine = [tenant_id for tenant_id, (place, _) in self._followed.items() if place == partition]
        # A load that was under way when the partition was lost is followed by nobody.
        mine += [tenant_id for tenant_id, memory in self._loaded.items() if memory.partition == partition]
        for tenant_id in mine:
            self.lose(tenant_id)

    def due(self, now_us: int) -> Iterator[tuple[TenantId, int]]:
        """Tenants with something to do, and since when."""
        for tenant_id, memory in self._loaded.items():
            due_us = memory.due_us()
            if due_us is not None and due_us <= now_us:
                yield tenant_id, due_us
        for tenant_id, due_us in self._asleep.items():
            if due_us <= now_us:
                yield tenant_id, due_us
