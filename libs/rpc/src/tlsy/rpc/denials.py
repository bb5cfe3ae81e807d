"""Refused calls, counted for the audit log so that a flood of them cannot fill it.

A denial has no transaction to ride on. It is written within a second, by whoever owns the outbox, if one of
its tenant, principal, method and reason was not in this minute; otherwise it is added up with those like it,
which are written when the minute ends. The table is bounded, and a tenant's share of it: what does not fit in
is counted under OVERFLOW, so that the number of denials is right although their subjects are not all named. A
process that is killed loses what it refused in its last second, and the count of what it refused again in its
last minute.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from prometheus_client import Counter

from tlsy.runtime.ids import PrincipalName, TenantId
from tlsy.runtime.logging import get_logger
from tlsy.runtime.service import Task

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from datetime import datetime

    from prometheus_client import CollectorRegistry

    from tlsy.runtime.clock import Clock

_Key = tuple[TenantId, PrincipalName, str, str]

OVERFLOW: Final = PrincipalName("overflow")
_MAX_KEYS: Final = 1000
_MAX_KEYS_OF_TENANT: Final = 250
_MAX_UNWRITTEN: Final = 5000
_MINUTE_S: Final = 60.0
_RETRY_MAX_S: Final = 10.0
_WRITE_TIMEOUT_S: Final = 10.0
#: Classes of SQL states of records that no database will ever take: malformed data, a broken constraint.
_HOPELESS_SQL: Final = frozenset({"22", "23"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedCalls:
    """Calls refused for the same reason within a minute.

    Attributes:
        tenant_id: of the token that was used.
        home_tenant_id: of the principal; another one only with exchanged tokens.
        resource: the first resource name in the first of the requests, if it was read.
        first_time: of the first of them.
        count: how many.
    """

    tenant_id: TenantId
    home_tenant_id: TenantId
    principal: PrincipalName
    method: str
    reason: str
    resource: str
    first_time: datetime
    count: int


class DenialSink(Protocol):
    """Where the interceptor puts refused calls; must not wait and must not fail."""

    def denied(self, call: DeniedCalls) -> None:
        """Take note of one refused call (`count` is 1)."""
        ...


class Denials:
    """A DenialSink that writes within a second, and when it is stopped; a component.

    What could not be written is kept and tried again, ever less often, every 10 s in the end. It is bounded:
    beyond that the oldest are dropped. A record that can never be written is dropped alone, so that it does
    not keep the others. Each drop is logged and counted.
    """

    __slots__ = (
        "_clock",
        "_counts",
        "_dropped",
        "_every_s",
        "_logger",
        "_minute_ends_s",
        "_some",
        "_task",
        "_told",
        "_told_of",
        "_unwritten",
        "_write",
    )

    def __init__(
        self,
        clock: Clock,
        write: Callable[[Sequence[DeniedCalls]], Awaitable[None]],
        *,
        registry: CollectorRegistry | None = None,
        every_s: float = 1.0,
    ) -> None:
        self._clock = clock
        self._write = write
        self._every_s = every_s
        self._counts: dict[_Key, DeniedCalls] = {}
        # What this minute's table holds, and whether it was written before.
        self._told: dict[_Key, bool] = {}
        self._told_of: Tally[TenantId] = Tally()
        self._minute_ends_s = 0.0
        self._some = asyncio.Event()
        self._unwritten: list[DeniedCalls] = []
        self._dropped = Counter(
            "tlsy_rpc_denials_dropped", "Refused calls that no audit record tells of.", registry=registry
        )
        self._logger = get_logger("rpc.denials")
        self._task = Task("denials", self._run)

    @property
    def name(self) -> str:
        """See `Component.name`."""
        return self._task.name

    async def start(self) -> None:
        """See `Component.start`."""
        await self._task.start()

    async def stop(self, grace_s: float) -> None:
        """Write what is there, then end."""
        await self._task.stop(grace_s)

    async def wait(self) -> None:
        """See `Component.wait`."""
        await self._task.wait()

    def denied(self, call: DeniedCalls) -> None:
        """See `DenialSink.denied`."""
        self._turn_minute()
        key = (call.tenant_id, call.principal, call.method, call.reason)
        if key not in self._told and not self._has_room(call.tenant_id):
            call = replace(call, principal=OVERFLOW, resource="", method="")
            key = (call.tenant_id, OVERFLOW, "", call.reason)
            if key not in self._told and len(self._told) >= 2 * _MAX_KEYS:
                self._dropped.inc()
                self._logger.warning("denial not audited", reason=call.reason, tenant_id=str(call.tenant_id))
                return
        if key not in self._told:
            self._told[key] = False
            self._told_of[call.tenant_id] += 1
        self._some.set()
        known = self._counts.get(key)
        self._counts[key] = call if known is None else replace(known, count=known.count + 1)

    def _has_room(self, tenant_id: TenantId) -> bool:
        return len(self._told) < _MAX_KEYS and self._told_of[tenant_id] < _MAX_KEYS_OF_TENANT

    async def flush(self) -> bool:
        """Write all that was counted; whether that was done. What fails is kept for the next time."""
        self._begin_minute()
        return await self._write_due()

    def _turn_minute(self) -> None:
        if self._clock.monotonic() >= self._minute_ends_s:
            self._begin_minute()

    def _begin_minute(self) -> None:
        """Everything that was counted is due, and there is room again for others."""
        self._told = dict.fromkeys(self._counts, False)
        self._told_of = Tally(tenant_id for tenant_id, *_ in self._told)
        self._minute_ends_s = self._clock.monotonic() + _MINUTE_S

    async def _write_due(self) -> bool:
        """Write what this minute has not told of; whether nothing of that is left."""
        due = [key for key in self._counts if not self._told[key]]
        self._told.update(dict.fromkeys(due, True))
        self._unwritten += [self._counts.pop(key) for key in due]
        excess = len(self._unwritten) - _MAX_UNWRITTEN
        if excess > 0:
            self._drop(self._unwritten[:excess], "there are too many")
            del self._unwritten[:excess]
        if not self._unwritten:
            return True
        batch = tuple(self._unwritten)
        try:
            async with asyncio.timeout(_WRITE_TIMEOUT_S):
                await self._write_all(batch)
        except Exception as error:  # noqa: BLE001 - the database is away; the next time tries again
            self._logger.warning("denials not written yet", count=len(self._unwritten), error=str(error))
            return False
        return True

    async def _write_all(self, batch: Sequence[DeniedCalls]) -> None:
        """Write, one by one if there is one that can never be written, and take what is done with off."""
        try:
            await self._write(batch)
        except Exception as error:
            if not _hopeless(error):
                raise
            if len(batch) > 1:
                for each in batch:
                    await self._write_all((each,))
                return
            self._drop(batch, str(error))
        del self._unwritten[: len(batch)]

    def _drop(self, records: Sequence[DeniedCalls], why: str) -> None:
        count = sum(record.count for record in records)
        self._dropped.inc(count)
        self._logger.error("denials dropped", count=count, why=why)

    async def _run(self, stopping: asyncio.Event) -> None:
        stopped = asyncio.ensure_future(stopping.wait())
        pause_s = self._every_s
        while not stopping.is_set():
            await _either(stopped, self._some.wait())
            await _either(stopped, self._clock.sleep(pause_s))
            if stopping.is_set():
                break
            self._turn_minute()
            done = await self._write_due()
            pause_s = self._every_s if done else min(2 * pause_s, _RETRY_MAX_S)
            if not (self._counts or self._unwritten):
                self._some.clear()
        await self.flush()
        stopped.cancel()


async def _either(stopped: asyncio.Future[Any], other: Coroutine[Any, Any, Any]) -> None:
    """Wait for the one or the other, which is given up then."""
    waiting = asyncio.ensure_future(other)
    try:
        await asyncio.wait({stopped, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _hopeless(error: Exception) -> bool:
    """Whether the same record will fail again; whatever else goes wrong may be over later."""
    return isinstance(error, ValueError | TypeError) or getattr(error, "sqlstate", "")[:2] in _HOPELESS_SQL
