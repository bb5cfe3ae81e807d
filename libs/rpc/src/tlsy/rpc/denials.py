"""Refused calls, counted for the audit log so that a flood of them cannot fill it.

A denial has no transaction to ride on. It is added up per minute, principal, method and reason, in a bounded
table, and written by whoever owns the outbox. What does not fit in the table is counted under OVERFLOW, so
that the number of denials is right although their subjects are not all named.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from prometheus_client import Counter

from tlsy.runtime.ids import PrincipalName, TenantId
from tlsy.runtime.logging import get_logger
from tlsy.runtime.service import Task

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from prometheus_client import CollectorRegistry

    from tlsy.runtime.clock import Clock

OVERFLOW: Final = PrincipalName("overflow")
_MAX_KEYS: Final = 1000
_MAX_UNWRITTEN: Final = 5000
_WRITE_TIMEOUT_S: Final = 10.0
#: Classes of SQL states of records that no database will ever take: malformed data, a broken constraint.
_HOPELESS_SQL: Final = frozenset({"22", "23"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedCalls:
    """Calls refused for the same reason within a minute.

    Attributes:
        tenant_id: of the token that was used.
        home_tenant_id: of the principal; another one only with exchanged tokens.
        resource: the first resource name in the first of the requests.
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
    """A DenialSink that writes once a minute, and when it is stopped; a component.

    What could not be written is kept for the next minute, up to a bound; beyond it the oldest are dropped. A
    record that can never be written is dropped alone, so that it does not keep the others. Each drop is
    logged and counted.
    """

    __slots__ = ("_clock", "_counts", "_dropped", "_every_s", "_logger", "_task", "_unwritten", "_write")

    def __init__(
        self,
        clock: Clock,
        write: Callable[[Sequence[DeniedCalls]], Awaitable[None]],
        *,
        registry: CollectorRegistry | None = None,
        every_s: float = 60.0,
    ) -> None:
        self._clock = clock
        self._write = write
        self._every_s = every_s
        self._counts: dict[tuple[TenantId, PrincipalName, str, str], DeniedCalls] = {}
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
        key = (call.tenant_id, call.principal, call.method, call.reason)
        if key not in self._counts and len(self._counts) >= _MAX_KEYS:
            call = replace(call, principal=OVERFLOW, resource="", method="")
            key = (call.tenant_id, OVERFLOW, "", call.reason)
            if key not in self._counts and len(self._counts) >= 2 * _MAX_KEYS:
                self._dropped.inc()
                self._logger.warning("denial not audited", reason=call.reason, tenant_id=str(call.tenant_id))
                return
        known = self._counts.get(key)
        self._counts[key] = call if known is None else replace(known, count=known.count + 1)

    async def flush(self) -> None:
        """Write all that was counted; what fails is kept for the next time."""
        self._unwritten += self._counts.values()
        self._counts.clear()
        excess = len(self._unwritten) - _MAX_UNWRITTEN
        if excess > 0:
            self._drop(self._unwritten[:excess], "there are too many")
            del self._unwritten[:excess]
        if not self._unwritten:
            return
        batch = tuple(self._unwritten)
        try:
            async with asyncio.timeout(_WRITE_TIMEOUT_S):
                await self._write_all(batch)
        except Exception as error:  # noqa: BLE001 - the database is away; the next minute tries again
            self._logger.warning("denials not written yet", count=len(self._unwritten), error=str(error))

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
        while not stopping.is_set():
            pause = asyncio.ensure_future(self._clock.sleep(self._every_s))
            await asyncio.wait({stopped, pause}, return_when=asyncio.FIRST_COMPLETED)
            pause.cancel()
            await self.flush()
        stopped.cancel()


def _hopeless(error: Exception) -> bool:
    """Whether the same record will fail again; whatever else goes wrong may be over a minute later."""
    return isinstance(error, ValueError | TypeError) or getattr(error, "sqlstate", "")[:2] in _HOPELESS_SQL
