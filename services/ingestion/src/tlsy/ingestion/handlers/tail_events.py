"""Events as they are stored, to whoever is listening on this replica.

One reader of the service's topic feeds every tail of the process, and reads only while there is one; what is
no tail's is not even decoded. A tail holds a bounded number of bytes: what a slow reader leaves is dropped,
counted, and told. When the topic is lost every tail ends, since nobody knows what its end has passed over.
Events wait serialized: one of a parsed record would keep all of the record in memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from tlsy.contracts.events import EVENTS_ACCEPTED
from tlsy.contracts.ingestion.events.v1 import events_pb2
from tlsy.contracts.ingestion.v1 import ingestion_pb2
from tlsy.rpc.errors import ResourceExhausted, Unavailable
from tlsy.runtime.ids import TenantId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from tlsy.contracts.cloudevents import CloudEvent

MAX_TAILS: Final = 200
MAX_TAILS_PER_TENANT: Final = 10
#: Of one tail; 200 tails whose readers are all stuck take 200 MiB.
_MAX_WAITING_BYTES: Final = 1_048_576
#: What an event takes beside its own bytes.
_OVERHEAD_BYTES: Final = 64
_MAX_MESSAGE: Final = 500
#: What was stored just before the topic was last seen may have come to it, and from it, only afterwards.
_ON_ITS_WAY: Final = timedelta(seconds=10)


class Tail:
    """What waits for one reader."""

    def __init__(self, wanted: Callable[[ingestion_pb2.Event], bool]) -> None:
        self._wanted = wanted
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._missed = 0
        self._lost_since: datetime | None = None
        self._arrived = asyncio.Event()

    def offer(self, events: Sequence[ingestion_pb2.Event]) -> None:
        """Keeps the wanted ones, or counts them as missed where there is no room; none behind a gap."""
        if self._lost_since is not None:
            return
        for event in events:
            if self._wanted(event):
                data = event.SerializeToString()
                size = len(data) + _OVERHEAD_BYTES
                if self._waiting_bytes + size <= _MAX_WAITING_BYTES:
                    self._waiting.append(data)
                    self._waiting_bytes += size
                else:
                    self._missed += 1
        if self._waiting:
            self._arrived.set()

    def lose(self, since: datetime) -> None:
        """Whatever is stored since may be missing: the tail ends behind what waits."""
        self._lost_since = self._lost_since or since
        self._arrived.set()

    async def next(self) -> tuple[list[ingestion_pb2.Event], int]:
        """Waits for events; those that came, and how many were missed before them.

        Raises:
            Unavailable: TAIL_INTERRUPTED, with "since" in its metadata: the topic is lost.
        """
        await self._arrived.wait()
        if self._lost_since is not None and not self._waiting:
            raise _interrupted(self._lost_since)
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_MESSAGE))]
        self._waiting_bytes -= sum(map(len, taken)) + _OVERHEAD_BYTES * len(taken)
        missed, self._missed = self._missed, 0
        if not self._waiting and self._lost_since is None:
            self._arrived.clear()
        return [ingestion_pb2.Event.FromString(data) for data in taken], missed


class TailEvents:
    """Every open tail of this process."""

    def __init__(self, following: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        """Wire it.

        Args:
            following: a block during which `on_event` gets what is written, until `on_lost`.
        """
        self._following = following
        self._tails: dict[TenantId, set[Tail]] = {}

    @asynccontextmanager
    async def open(
        self, tenant_id: TenantId, wanted: Callable[[ingestion_pb2.Event], bool]
    ) -> AsyncIterator[Tail]:
        """A tail of one tenant's events, until the block ends or `Tail.next` raises.

        Raises:
            ResourceExhausted: TOO_MANY_TAILS of this tenant, or in all.
        """
        of_tenant = self._tails.setdefault(tenant_id, set())
        if len(of_tenant) >= MAX_TAILS_PER_TENANT or sum(map(len, self._tails.values())) >= MAX_TAILS:
            self._forget_if_empty(tenant_id)
            text = "too many tails are open; close one"
            raise ResourceExhausted("TOO_MANY_TAILS", text, retry_after_s=5.0)
        tail = Tail(wanted)
        of_tenant.add(tail)
        try:
            async with self._following():
                yield tail
        finally:
            of_tenant.discard(tail)
            self._forget_if_empty(tenant_id)

    def on_event(self, event: CloudEvent) -> None:
        """Hands a record of the topic to the tails of its tenant, and to no other."""
        tails = self._tails.get(TenantId(event.tenant_id))
        if not tails or event.type != EVENTS_ACCEPTED:
            return
        events = list(events_pb2.EventsAccepted.FromString(event.data).events)
        for tail in tails:
            tail.offer(events)

    def on_lost(self, since: datetime) -> None:
        """Ends every tail: of what is written since, some may never come."""
        for tails in self._tails.values():
            for tail in tails:
                tail.lose(since - _ON_ITS_WAY)

    def _forget_if_empty(self, tenant_id: TenantId) -> None:
        if not self._tails.get(tenant_id):
            self._tails.pop(tenant_id, None)


def _interrupted(since: datetime) -> Unavailable:
    told = f"{since:%Y-%m-%dT%H:%M:%SZ}"
    text = (
        f"The log of events is lost: some that were stored since {told} may be missing here. QueryEvents has"
        " all that are stored, by their own times; begin another tail for those to come."
    )
    return Unavailable("TAIL_INTERRUPTED", text, metadata={"since": told}, retry_after_s=1.0)
