"""One assigned partition: reads it in order, applies each tenant's records in order, tenants side by side.

Offsets are committed a while after the effects of all records below them: applied, refused, skipped or
parked. A tenant whose database cannot be written to is paused: its records go to the parking, and while any
is there its new ones follow them; a task of its own tries the oldest from time to time. What a tenant over
its rate cannot park any more is refused; what any other paused tenant cannot park stops the partition.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Final

import asyncpg

from tlsy.contracts.events import TOPICS
from tlsy.eventlog.applier import Envelope
from tlsy.eventlog.cloudevents import log_of
from tlsy.eventlog.errors import (
    DeadLetterLimitReached,
    LogUnavailable,
    ParkingFull,
    Poison,
    RetryableError,
    TenantOverRate,
)
from tlsy.eventlog.progress import Progress
from tlsy.runtime.ids import TenantId
from tlsy.runtime.logging import get_logger
from tlsy.tenancy.errors import Retryable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime
    from uuid import UUID

    from tlsy.eventlog.applier import Applier
    from tlsy.eventlog.delivery import Decode, DecodeParked
    from tlsy.eventlog.group_books import GroupBooks
    from tlsy.eventlog.parking import Parking
    from tlsy.eventlog.ports import GroupReader, Received, TopicPartition
    from tlsy.runtime.clock import Clock

_AWAY: Final = (Retryable, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
_FETCH_TIMEOUT_S: Final = 0.5
_REPLAY_ROWS: Final = 50
#: Written by relays alone; in another topic a producer may call any number an incarnation.
_RELAYED: Final = frozenset(TOPICS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionSettings:
    """Bounds of one partition's work.

    Attributes:
        fetch_records: taken at a time.
        tell_s: between commits of what is applied.
        tenants_at_once: that are applied side by side.
        retry_s: between tries of what must succeed before anything goes on (books, parking, dead letters).
        replay_s: between tries of a paused tenant, doubled each time.
        replay_max_s: limit of that.
    """

    fetch_records: int = 500
    tell_s: float = 0.25
    tenants_at_once: int = 8
    retry_s: float = 0.2
    replay_s: float = 0.2
    replay_max_s: float = 10.0


@dataclass(slots=True)
class _Paused:
    """A tenant with parked records. The lock keeps new ones from overtaking the last parked one."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    failures: int = 0
    due_at: float = 0.0
    over_rate: bool = False
    replaying: bool = False


class PartitionWorker:
    """Works one assignment of a partition until it is stopped, or a limit stops it."""

    __slots__ = (
        "_applier",
        "_books",
        "_clock",
        "_cluster_id",
        "_decode",
        "_decode_parked",
        "_epoch",
        "_expected",
        "_from_start",
        "_log",
        "_logger",
        "_parking",
        "_partition",
        "_paused",
        "_progress",
        "_reader",
        "_settings",
        "_stopping",
        "behind_since",
        "unsettled",
    )

    def __init__(
        self,
        partition: TopicPartition,
        *,
        epoch: int,
        reader: GroupReader,
        decode: Decode,
        decode_parked: DecodeParked,
        applier: Applier,
        books: GroupBooks,
        parking: Parking,
        clock: Clock,
        settings: PartitionSettings,
    ) -> None:
        self._partition = partition
        self._epoch = epoch
        self._reader = reader
        self._decode = decode
        self._decode_parked = decode_parked
        self._applier = applier
        self._books = books
        self._parking = parking
        self._clock = clock
        self._settings = settings
        self._paused: dict[UUID, _Paused] = {}
        self._progress = Progress(partition, books=books, reader=reader, clock=clock, every_s=settings.tell_s)
        self._expected: int | None = None
        self._from_start = False
        self._log = 0
        self._cluster_id: str | None = None
        self._stopping = asyncio.Event()
        # Records that were fetched and have no effect yet; the time of the oldest, or of the last before.
        self.unsettled = 0
        self.behind_since: datetime | None = None
        self._logger = get_logger("consumer").bind(topic=partition.topic, partition=partition.partition)

    def finish(self) -> None:
        """Take nothing new; `run` returns after what it has begun."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `finish`. Raises Fenced, DeadLetterLimitReached; LogUnavailable when reading fails."""
        await self._until_done(self._begin)
        replaying = asyncio.create_task(self._replay_loop())
        telling = asyncio.create_task(self._progress.run())
        try:
            while not self._stopping.is_set():
                records = await self._reader.fetch(
                    self._partition,
                    max_records=self._settings.fetch_records,
                    timeout_s=_FETCH_TIMEOUT_S,
                )
                if records:
                    await self._work(records)
                for task in (replaying, telling):
                    if task.done():
                        task.result()
        finally:
            self._progress.end()
            replaying.cancel()
            telling.cancel()
            await asyncio.wait({replaying, telling})
            if not _is_cancelled():
                await self._progress.tell()

    async def _begin(self) -> None:
        for tenant_id in await self._parking.tenants(self._partition):
            self._paused[tenant_id] = _Paused()
        self._expected = await self._reader.committed(self._partition)
        if self._expected is None and self._partition.topic in _RELAYED:
            # That it begins behind the start is in its books (`_notice_gap`).
            self._expected = 0
        self._from_start = not self._expected

    async def _work(self, fetched: Sequence[Received]) -> None:
        """Give what was fetched its effect, up to where a log begins that does not go on from before."""
        left = fetched
        while left and await self._continues(left[0]):
            # Relays do not learn of a new log all at once: their records alternate with those of before.
            of_log = list(takewhile(lambda record: (_incarnation(record) or 0) <= self._log, left))
            self.unsettled, self.behind_since = len(left), left[0].time
            await self._work_on(of_log)
            left = left[len(of_log) :]
        self.unsettled = 0

    async def _work_on(self, records: Sequence[Received]) -> None:
        await self._until_done(lambda: self._notice_gap(records[0]))
        done: set[int] = set()
        failure = await self._apply(records, done)
        if failure is not None and not isinstance(failure, DeadLetterLimitReached):
            raise failure
        settled = list(takewhile(lambda record: record.offset in done, records))
        if settled:
            self._settle(settled)
        self.unsettled -= len(settled)
        self.behind_since = records[min(len(settled), len(records) - 1)].time
        if failure is not None:
            raise failure

    async def _apply(self, records: Sequence[Received], done: set[int]) -> BaseException | None:
        """Give each record its effect, and add its offset to `done`; answers what ended that early."""
        by_tenant: dict[UUID, list[Envelope]] = {}
        failure: BaseException | None = None
        try:
            for record in records:
                envelope = await self._read(record)
                if envelope is None:
                    done.add(record.offset)
                else:
                    by_tenant.setdefault(envelope.event.tenant_id, []).append(envelope)
        except DeadLetterLimitReached as limit:
            # What was read before has its effect first, so that the offset lies where the limit was reached.
            failure = limit
        gate = asyncio.Semaphore(self._settings.tenants_at_once)
        outcomes = await asyncio.gather(
            *(self._apply_tenant(gate, tenant_id, todo, done) for tenant_id, todo in by_tenant.items()),
            return_exceptions=True,
        )
        return next((outcome for outcome in outcomes if outcome is not None), failure)

    async def _read(self, record: Received) -> Envelope | None:
        """The record's event; None if it was refused."""
        envelope: Envelope | None = None

        async def step() -> None:
            nonlocal envelope
            try:
                envelope = Envelope(record, await self._decode(record))
            except (*_AWAY, RetryableError):
                raise
            except Exception as error:  # noqa: BLE001 - whoever wrote the record must not end this process
                await self._applier.refuse(record, _poison(error))

        await self._until_done(step)
        return envelope

    async def _apply_tenant(
        self, gate: asyncio.Semaphore, tenant_id: UUID, todo: list[Envelope], offsets: set[int]
    ) -> None:
        """Apply all of `todo`, or park what cannot be applied now."""
        done: list[Envelope] = []

        async def step() -> None:
            left = todo[len(done) :]
            if await self._parked_behind(tenant_id, left, done):
                return
            why = await self._applier.apply(left, done)
            if why is not None:
                over_rate = isinstance(why, TenantOverRate)
                await self._park(tenant_id, todo[len(done) :], done, over_rate=over_rate)
                self._paused[tenant_id] = _Paused(
                    due_at=self._clock.monotonic() + self._settings.replay_s, over_rate=over_rate
                )
                self._logger.warning("tenant paused", tenant=str(tenant_id), reason=str(why))

        async with gate:
            try:
                await self._until_done(step)
            finally:
                offsets.update(envelope.record.offset for envelope in done)

    async def _parked_behind(self, tenant_id: UUID, todo: Sequence[Envelope], done: list[Envelope]) -> bool:
        """Park `todo` if older records of the tenant are parked; whether that was so."""
        paused = self._paused.get(tenant_id)
        if paused is None:
            return False
        async with paused.lock:
            # The last parked record may have been replayed while the lock was awaited.
            if self._paused.get(tenant_id) is not paused:
                return False
            await self._park(tenant_id, todo, done, over_rate=paused.over_rate)
            return True

    async def _park(
        self, tenant_id: UUID, envelopes: Sequence[Envelope], done: list[Envelope], *, over_rate: bool
    ) -> None:
        try:
            await self._parking.park(
                tenant_id,
                self._partition,
                [envelope.record for envelope in envelopes],
                epoch=self._epoch,
                over_rate=over_rate,
            )
        except ParkingFull:
            # Who sends too much loses that, and stops nobody.
            if not over_rate or await self._applier.apply(envelopes, done, overflow=True) is not None:
                raise
        else:
            done.extend(envelopes)

    def _settle(self, records: Sequence[Received]) -> None:
        """Everything up to the last of `records` has its effect."""
        next_offsets = {log: r.offset + 1 for r in records if (log := _incarnation(r)) is not None}
        self._expected = records[-1].offset + 1
        self._progress.note(next_offsets, self._expected)

    async def _continues(self, first: Received) -> bool:
        """Whether the log in which `first` is goes on from what was read before; if not, it begins anew.

        A log that was cut, or that another cluster holds, may have other records below this position. What
        is new there is in an incarnation that this group has not begun: then everything that the cluster
        has is read again, and inboxes drop what was applied. In the middle of another cluster's log this
        member's membership is worth nothing either: it joins again and begins where the group is there.
        Of one that has ended meanwhile all that the group lacks comes again in the present one.
        """
        log, present, holder, begun = _incarnation(first), 0, "", False
        if log is None or log <= self._log:
            return True
        await self._progress.tell()

        async def look_up() -> None:
            nonlocal present, holder, begun
            present, holder = await self._books.topic_log(self._partition.topic)
            begun = await self._books.applied(self._partition, log) is not None

        await self._until_done(look_up)
        cluster_id, has_ended = holder if log == present else None, log < present
        same = cluster_id is not None and cluster_id == self._cluster_id
        if self._log and first.offset > 0 and not (same or has_ended):
            raise LogUnavailable(f"incarnation {log} follows {self._log} at offset {first.offset}")
        read_whole = self._from_start and not self._log
        self._log, self._cluster_id = log, cluster_id
        if has_ended or begun or first.offset == 0 or self._expected is None or read_whole:
            return True
        self._logger.warning("log is read from its start", log=log, offset=first.offset)
        await self._reader.rewind(self._partition)
        # Whoever follows goes on with that, and does not begin it again.
        await self._progress.begin_again(log, await self._reader.oldest(self._partition))
        self._applier.read_again(self._expected)
        return False

    async def _notice_gap(self, first: Received) -> None:
        """If the broker dropped records that this group has not seen, have them published again."""
        if self._expected is None or first.offset <= self._expected:
            return
        # What a producer's transactions leave takes offsets, too, and is no record.
        oldest = await self._reader.oldest(self._partition)
        if oldest <= self._expected:
            return
        # In the present incarnation, whichever these are in: what is lacking of others comes again in that.
        if (await self._books.applied(self._partition) or 0) >= oldest:
            return
        # A letter that was put back does not say which log it is in.
        log = _incarnation(first) or self._log or None
        self._logger.error("records are missing", expected=self._expected, found=first.offset, log=log)
        if first.topic in _RELAYED:
            await self._books.end_log(self._partition.topic, log)
        # Who begins here again before anything is settled would have them published once more each time.
        self._expected = first.offset
        self._progress.note({}, first.offset)
        await self._progress.tell()

    async def _replay_loop(self) -> None:
        """Let each paused tenant's replays take the time that its database takes; few run at a time."""
        gate = asyncio.Semaphore(self._settings.tenants_at_once)
        tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                now = self._clock.monotonic()
                for tenant_id, paused in list(self._paused.items()):
                    if paused.due_at <= now and not paused.replaying:
                        paused.replaying = True
                        tasks.add(asyncio.create_task(self._replay(gate, tenant_id, paused)))
                for task in [task for task in tasks if task.done()]:
                    tasks.remove(task)
                    task.result()
                await self._clock.sleep(self._settings.replay_s / 2)
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def _replay(self, gate: asyncio.Semaphore, tenant_id: UUID, paused: _Paused) -> None:
        try:
            async with gate:
                paused.failures += 1
                with contextlib.suppress(*_AWAY, LogUnavailable):
                    while await self._replay_some(tenant_id, paused):
                        paused.failures = 0
        finally:
            paused.due_at = self._clock.monotonic() + min(
                self._settings.replay_s * 2 ** min(paused.failures, 16), self._settings.replay_max_s
            )
            paused.replaying = False

    async def _replay_some(self, tenant_id: UUID, paused: _Paused) -> bool:
        """Try the oldest parked records of a tenant; whether there is reason to go on at once."""
        parked = await self._parking.first(tenant_id, self._partition, _REPLAY_ROWS)
        # Asked last: of a tenant that went while its records were looked up a try would refuse them.
        if await self._applier.is_gone(TenantId(tenant_id)):
            await self._forget(tenant_id, paused)
            return False
        if not parked:
            async with paused.lock:
                if await self._parking.first(tenant_id, self._partition, 1):
                    return True
                del self._paused[tenant_id]
            self._logger.info("tenant resumed", tenant=str(tenant_id))
            return False
        envelopes: list[Envelope] = []
        done: list[Envelope] = []
        for number, record in parked:
            try:
                envelopes.append(Envelope(record, self._decode_parked(record, tenant_id), parked=True))
            except Exception as error:  # noqa: BLE001 - as with a record that was not parked
                if envelopes:
                    break
                await self._applier.refuse(record, _poison(error))
                await self._parking.release(tenant_id, [number])
                return True
        try:
            why = await self._applier.apply(envelopes, done)
        finally:
            if done:
                await self._parking.release(tenant_id, [number for number, _ in parked[: len(done)]])
        paused.over_rate = isinstance(why, TenantOverRate)
        return why is None

    async def _forget(self, tenant_id: UUID, paused: _Paused) -> None:
        """The tenant was deleted: so is what waits for it."""
        async with paused.lock:
            count = await self._parking.purge(tenant_id, self._partition)
            del self._paused[tenant_id]
        self._applier.skip(count)
        self._logger.warning("records of a deleted tenant forgotten", tenant=str(tenant_id), count=count)

    async def _until_done(self, step: Callable[[], Awaitable[None]]) -> None:
        """What must succeed before the partition goes on; it stands still meanwhile."""
        said = ""
        while True:
            try:
                await step()
            except (*_AWAY, RetryableError, ParkingFull) as error:
                if said != str(error):
                    said = str(error)
                    self._logger.warning("partition stands still", error=said)
                await self._clock.sleep(self._settings.retry_s)
            else:
                return


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _incarnation(record: Received) -> int | None:
    return log_of(record.headers) if record.topic in _RELAYED else None


def _poison(error: Exception) -> Poison:
    return error if isinstance(error, Poison) else Poison("UNREADABLE_RECORD", [repr(error)])
