"""Events as they are stored, to whoever is listening on this replica.

One reader of the service's topic feeds every tail of the process, and reads only while there is one; what is
no tail's is not even decoded. A tail holds a bounded number of bytes: what a slow reader leaves is dropped,
counted, and told. Events wait serialized: one of a parsed record would keep all of the record in memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from tlsy.contracts.events import EVENTS_ACCEPTED
from tlsy.contracts.ingestion.events.v1 import events_pb2
from tlsy.contracts.ingestion.v1 import ingestion_pb2
from tlsy.rpc.errors import ResourceExhausted
from tlsy.runtime.ids import TenantId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from tlsy.contracts.cloudevents import CloudEvent

MAX_TAILS: Final = 200
MAX_TAILS_PER_TENANT: Final = 10
#: Of one tail; 200 tails whose readers are all stuck take 200 MiB.
_MAX_WAITING_BYTES: Final = 1_048_576
#: What an event takes beside its own bytes.
_OVERHEAD_BYTES: Final = 64
_MAX_MESSAGE: Final = 500


class Tail:
    """What waits for one reader."""

    def __init__(self, wanted: Callable[[ingestion_pb2.Event], bool]) -> None:
        self._wanted = wanted
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._missed = 0
        self._arrived = asyncio.Event()

    def offer(self, events: Sequence[ingestion_pb2.Event]) -> None:
        """Keeps the wanted ones, or counts them as missed where there is no room."""
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

    async def next(self) -> tuple[list[ingestion_pb2.Event], int]:
        """Waits for events; those that came, and how many were missed before them."""
        await self._arrived.wait()
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_MESSAGE))]
        self._waiting_bytes -= sum(map(len, taken)) + _OVERHEAD_BYTES * len(taken)
        missed, self._missed = self._missed, 0
        if not self._waiting:
            self._arrived.clear()
        return [ingestion_pb2.Event.FromString(data) for data in taken], missed


class TailEvents:
    """Every open tail of this process."""

    def __init__(self, following: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        """Wire it.

        Args:
            following: a block during which `on_event` gets what is written, but while no broker answers.
        """
        self._following = following
        self._tails: dict[TenantId, set[Tail]] = {}

    @asynccontextmanager
    async def open(
        self, tenant_id: TenantId, wanted: Callable[[ingestion_pb2.Event], bool]
    ) -> AsyncIterator[Tail]:
        """A tail of one tenant's events, until the block ends, but of none stored while no broker answers.

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

    def _forget_if_empty(self, tenant_id: TenantId) -> None:
        if not self._tails.get(tenant_id):
            self._tails.pop(tenant_id, None)
