"""A consumer group's member: joins, works each partition that it is assigned, and lets go of it in order."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

import asyncpg

from tlsy.contracts.events import EVENTS
from tlsy.eventlog.applier import Applier, RetryPolicy, TenantTransactions
from tlsy.eventlog.dead_letters import DeadLetterGauge, DeadLetterLimits
from tlsy.eventlog.delivery import decode_parked_record, decode_record
from tlsy.eventlog.errors import DeadLetterLimitReached, EventLogError, Fenced, LogUnavailable
from tlsy.eventlog.fence import PartitionFence
from tlsy.eventlog.group_books import ControlTransactions, GroupBooks
from tlsy.eventlog.growth import Growth
from tlsy.eventlog.parking import Parking, ParkingLimits
from tlsy.eventlog.partition import PartitionSettings, PartitionWorker
from tlsy.runtime.logging import get_logger
from tlsy.tenancy.errors import TenancyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from google.protobuf.message import Message
    from prometheus_client import Gauge

    from tlsy.eventlog.dead_letters import DeadLetters
    from tlsy.eventlog.delivery import Decode, DecodeParked, Route
    from tlsy.eventlog.metrics import EventLogMetrics
    from tlsy.eventlog.ports import GroupReader, TopicPartition
    from tlsy.runtime.clock import Clock

_HOUSEKEEPING_S: Final = 5.0
_LETTERS_S: Final = 60.0
_REJOIN_S: Final = 0.5
#: To end what lost its cancellation.
_CANCEL_AGAIN_S: Final = 0.5
_FAILURES: Final = (EventLogError, TenancyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})


class PartitionOwnership(Protocol):
    """Who keeps state in memory per partition: loaded before the first delivery, dropped after the last.

    With one, every transaction of the group is fenced by the assignment's epoch.
    """

    async def on_assigned(self, partition: TopicPartition, epoch: int) -> None:
        """Load what the partition's tenants need. May raise PlacementUnavailable: it is called again."""
        ...

    async def on_revoked(self, partition: TopicPartition) -> None:
        """Drop it; another process may own the partition already."""
        ...


class Transactions(TenantTransactions, ControlTransactions, Protocol):
    """Both kinds; `Tenancy` is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSettings:
    """Bounds of one consumer.

    Attributes:
        partition: of one partition's work.
        retry: of one delivery.
        dead_letters: how much may be refused before a partition stops.
        parking: how much may be parked.
        inbox_retention: events written before that are refused as TOO_OLD.
        revoke_timeout_s: to finish what was begun when a partition is taken away.
        growth_known_s: after that all who write to a topic that got more partitions know it: they look every
            5 s, and give up in another 5 s what they have begun to send.
    """

    partition: PartitionSettings = field(default_factory=PartitionSettings)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    dead_letters: DeadLetterLimits = field(default_factory=DeadLetterLimits)
    parking: ParkingLimits = field(default_factory=ParkingLimits)
    inbox_retention: timedelta = timedelta(days=9)
    revoke_timeout_s: float = 5.0
    growth_known_s: float = 10.0


@dataclass(slots=True)
class _Assigned:
    worker: PartitionWorker | None
    task: asyncio.Task[None]


class Consumer:
    """A component; see the module's text.

    Nothing about the broker or the databases need be there at the start. A partition that reached a limit of
    dead letters stays stopped, with its offset, until it is assigned anew; the others go on.

    Args:
        group: the consumer group; by convention the service's name, a suffix for a second one.
        topics: what the group reads.
        package: the service's package name.
        reader: makes a member of the group that reads these topics.
        routes: event type to handler; other types are skipped and counted.
        transactions: of the service.
        dead_letters: of the group.
        clock: for waits and ages.
        jitter: a number from 0 to 1, another each time.
        metrics: of the process.
        ownership: state per partition, if there is any.
        makes: topics, with their partitions, that no relay makes: made here, also on a broker that came
            back empty.
        ready: awaited before joining, e.g. until the catalogue of tenants is loaded.
        decode: record to event.
        decode_parked: the same after parking, when e.g. a token in the record may have expired.
        payloads: event type to message.
        settings: bounds.
    """

    def __init__(
        self,
        group: str,
        topics: Sequence[str],
        *,
        package: str,
        reader: Callable[[], GroupReader],
        routes: Mapping[str, Route],
        transactions: Transactions,
        dead_letters: DeadLetters,
        clock: Clock,
        jitter: Callable[[], float],
        metrics: EventLogMetrics,
        ownership: PartitionOwnership | None = None,
        ready: Callable[[], Awaitable[None]] | None = None,
        makes: Mapping[str, int] = _NOTHING,
        decode: Decode = decode_record,
        decode_parked: DecodeParked = decode_parked_record,
        payloads: Mapping[str, type[Message]] = EVENTS,
        settings: ConsumerSettings | None = None,
    ) -> None:
        self._group = group
        self._topics = tuple(topics)
        self._package = package
        self._reader_of = reader
        self._routes = routes
        self._transactions = transactions
        self._dead_letters = dead_letters
        self._clock = clock
        self._jitter = jitter
        self._metrics = metrics
        self._ownership = ownership
        self._ready = ready
        self._makes = makes
        self._decode = decode
        self._decode_parked = decode_parked
        self._payloads = payloads
        self._settings = settings or ConsumerSettings()
        self._books = GroupBooks(package, group, transactions)
        self._parking = Parking(package, group, transactions, limits=self._settings.parking)
        self._growth = Growth(
            group,
            books=self._books,
            parking=self._parking,
            clock=clock,
            known_s=self._settings.growth_known_s,
        )
        self._logger = get_logger("consumer").bind(group=group)
        self._reader: GroupReader | None = None
        self._assigned: dict[TopicPartition, _Assigned] = {}
        self._stopped: set[TopicPartition] = set()
        # For this consumer's life: joining again gives nobody another twenty letters.
        self._gauges: dict[TopicPartition, DeadLetterGauge] = {}
        self._broken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._main: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """See `Component.name`."""
        return f"{self._group}-consumer"

    def stopped_partitions(self) -> frozenset[TopicPartition]:
        """Partitions that a limit stopped; a service with one is not ready."""
        return frozenset(self._stopped)

    async def start(self) -> None:
        """Begin to join."""
        self._main = asyncio.create_task(self._run(), name=self.name)

    async def stop(self, grace_s: float) -> None:
        """Finish what was begun within `grace_s`, commit, and leave the group."""
        self._stopping.set()
        self._broken.set()
        if self._main is None:
            return
        done, _ = await asyncio.wait({self._main}, timeout=grace_s)
        if not done:
            self._main.cancel()
            await asyncio.wait({self._main})

    async def wait(self) -> None:
        """See `Component.wait`."""
        if self._main is not None:
            await asyncio.wait({self._main})
            if not self._main.cancelled():
                self._main.result()

    async def _run(self) -> None:
        if self._ready is not None:
            await self._ready()
        while not self._stopping.is_set():
            self._broken.clear()
            reader = self._reader = self._reader_of()
            try:
                await self._books.register(self._topics)
                await self._dead_letters.ensure_topics(self._topics, self._makes)
                if await self._joined(reader):
                    await self._keep_house(reader)
            except _FAILURES as error:
                self._logger.warning("not in the group", error=str(error))
            finally:
                await self._leave(reader)
            if not self._stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _REJOIN_S)

    async def _joined(self, reader: GroupReader) -> bool:
        """Join, which may take as long as there is no broker or no topic; False if asked to stop before."""
        joining = asyncio.ensure_future(
            reader.start(partial(self._on_assigned, reader), partial(self._on_revoked, reader))
        )
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({joining, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if joining.done():
                joining.result()
            return joining.done()
        finally:
            for task in (joining, stopping):
                task.cancel()
            await asyncio.wait({joining, stopping})

    async def _leave(self, reader: GroupReader) -> None:
        """Let go of everything, whatever happens meanwhile: the next member begins with nothing."""
        self._reader = None
        task = asyncio.current_task()
        try:
            # Nobody waits for what was begun once the grace is over.
            if task is None or not task.cancelling():
                await self._revoke(list(self._assigned))
        finally:
            try:
                await self._abandon()
            finally:
                await reader.stop()

    async def _abandon(self) -> None:
        """What an interrupted or failed revocation left."""
        await _cancelled({assigned.task for assigned in self._assigned.values()})
        for partition, assigned in list(self._assigned.items()):
            await self._let_go(partition, assigned)

    async def _keep_house(self, reader: GroupReader) -> None:
        """While the membership lasts: metrics, and being seen by the relays of the topics."""
        letters_at = self._clock.monotonic() + _HOUSEKEEPING_S
        while not self._broken.is_set() and not self._stopping.is_set():
            for assigned in self._assigned.values():
                if assigned.task.done() and not assigned.task.cancelled():
                    assigned.task.result()
            with contextlib.suppress(*_FAILURES):
                await self._measure_lag(reader)
                self._tell(self._metrics.parked, self._metrics.parked_s, await self._parking.backlog())
                await self._books.register(self._topics)
                await self._dead_letters.ensure_topics(self._topics, self._makes)
                if self._clock.monotonic() >= letters_at:
                    letters_at = self._clock.monotonic() + _LETTERS_S
                    letters = await self._dead_letters.backlog(self._topics)
                    self._tell(
                        self._metrics.dead_letter_backlog_items, self._metrics.dead_letter_backlog_s, letters
                    )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._broken.wait(), _HOUSEKEEPING_S)

    async def _measure_lag(self, reader: GroupReader) -> None:
        """A partition that stands still is behind by what it holds, too, and since its oldest record."""
        lags, now = await reader.lag(), self._clock.now()
        items: dict[str, int] = dict.fromkeys(self._topics, 0)
        ages_s: dict[str, float] = dict.fromkeys(self._topics, 0.0)
        for partition, assigned in self._assigned.items():
            lag, since = lags.get(partition, 0), None
            if assigned.worker is not None:
                lag, since = lag + assigned.worker.unsettled, assigned.worker.behind_since
            items[partition.topic] = items.get(partition.topic, 0) + lag
            if lag and since is not None:
                age_s = (now - since).total_seconds()
                ages_s[partition.topic] = max(ages_s.get(partition.topic, 0.0), age_s)
        for topic in self._topics:
            self._metrics.lag.labels(self._group, topic).set(items[topic])
            self._metrics.lag_s.labels(self._group, topic).set(ages_s[topic])

    def _tell(self, items: Gauge, age_s: Gauge, backlog: tuple[int, datetime | None]) -> None:
        count, since = backlog
        items.labels(self._group).set(count)
        age_s.labels(self._group).set((self._clock.now() - since).total_seconds() if since else 0.0)

    async def _on_assigned(self, reader: GroupReader, partitions: Sequence[TopicPartition]) -> None:
        if reader is not self._reader:
            # A member that is leaving finishes the join that it was in.
            return
        for partition in partitions:
            if partition not in self._assigned:
                task = asyncio.create_task(
                    self._own(partition, reader), name=f"{self.name}-{partition.partition}"
                )
                self._assigned[partition] = _Assigned(None, task)

    async def _on_revoked(self, reader: GroupReader, partitions: Sequence[TopicPartition]) -> None:
        if reader is self._reader:
            await self._revoke(partitions)

    async def _revoke(self, partitions: Sequence[TopicPartition]) -> None:
        going = {
            partition: self._assigned[partition] for partition in partitions if partition in self._assigned
        }
        for assigned in going.values():
            if assigned.worker is not None:
                assigned.worker.finish()
            else:
                assigned.task.cancel()
        if going:
            _, late = await asyncio.wait(
                {assigned.task for assigned in going.values()}, timeout=self._settings.revoke_timeout_s
            )
            await _cancelled(late)
        for partition, assigned in going.items():
            await self._let_go(partition, assigned)

    async def _let_go(self, partition: TopicPartition, assigned: _Assigned) -> None:
        if self._assigned.get(partition) is assigned:
            del self._assigned[partition]
            self._mark_stopped(partition, stopped=False)
            if self._ownership is not None:
                await self._ownership.on_revoked(partition)

    async def _own(self, partition: TopicPartition, reader: GroupReader) -> None:
        """One assignment, from taking its epoch to its end."""
        epoch = await self._take(partition, reader)
        worker = PartitionWorker(
            partition,
            epoch=epoch,
            reader=reader,
            decode=self._decode,
            decode_parked=self._decode_parked,
            applier=self._applier(partition, epoch),
            books=self._books,
            parking=self._parking,
            clock=self._clock,
            settings=self._settings.partition,
        )
        self._assigned[partition].worker = worker
        self._logger.info(
            "partition assigned", topic=partition.topic, partition=partition.partition, epoch=epoch
        )
        try:
            await worker.run()
        except DeadLetterLimitReached as error:
            self._mark_stopped(partition, stopped=True)
            self._logger.critical(
                "partition stopped", topic=partition.topic, partition=partition.partition, error=str(error)
            )
        except (Fenced, LogUnavailable) as error:
            self._logger.warning("partition let go", partition=partition.partition, error=str(error))
            self._broken.set()

    async def _take(self, partition: TopicPartition, reader: GroupReader) -> int:
        while True:
            try:
                await self._growth.wait_for_turn(partition, reader)
                epoch = await self._books.take(partition)
                if self._ownership is not None:
                    await self._ownership.on_assigned(partition, epoch)
            except _FAILURES as error:
                self._logger.warning("partition cannot be taken yet", error=str(error))
                await self._clock.sleep(self._settings.partition.retry_s)
            else:
                return epoch

    def _applier(self, partition: TopicPartition, epoch: int) -> Applier:
        fenced = self._ownership is not None
        return Applier(
            self._group,
            routes=self._routes,
            payloads=self._payloads,
            transactions=self._transactions,
            fence=PartitionFence(self._package, self._group) if fenced else None,
            dead_letters=self._dead_letters,
            gauge=self._gauges.setdefault(partition, DeadLetterGauge(self._settings.dead_letters)),
            retry=self._settings.retry,
            inbox_retention=self._settings.inbox_retention,
            clock=self._clock,
            jitter=self._jitter,
            metrics=self._metrics,
            assignment_epoch=epoch,
        )

    def _mark_stopped(self, partition: TopicPartition, *, stopped: bool) -> None:
        (self._stopped.add if stopped else self._stopped.discard)(partition)
        self._metrics.stopped_partitions.labels(self._group).set(len(self._stopped))


async def _cancelled(tasks: AbstractSet[asyncio.Task[None]]) -> None:
    """Cancels until all have ended.

    Once may not do: `asyncio.wait_for` of CPython 3.11 loses what comes together with an answer.
    """
    while tasks:
        for task in tasks:
            task.cancel()
        _, tasks = await asyncio.wait(tasks, timeout=_CANCEL_AGAIN_S)
