"""Evaluates a tenant's rules inside one transaction: what the engine did and what is stored commit together.

The rule set's row is locked first and for the whole transaction. It tells which rules are live, so that no
event is ever judged by old ones, and whether the engine in memory is what the database has; and no two
transactions of a tenant touch its engine at a time.

Whatever goes wrong in judging is the tenant's own. A first try that fails is given up whole; in the next one
the rule at fault is taken out of force and the events are judged by the others. If it is no rule's fault, the
tenant is paused.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg

from tlsy.eventlog.errors import EventLogError, RetryableError, TenantPaused
from tlsy.rules_engine.domain.ast import RuleName, VersionId
from tlsy.rules_engine.domain.canonical import NotCanonicalError, load_rule
from tlsy.rules_engine.domain.engine import Engine, JudgingFailed
from tlsy.rules_engine.domain.incident import DedupKey, dedup_key
from tlsy.rules_engine.domain.rows import REFRESHES_OWNER, SOURCE_OWNER
from tlsy.rules_engine.handlers.engine_events import engine_events
from tlsy.rules_engine.handlers.halting import REASON, compiled, load
from tlsy.rules_engine.handlers.incident_book import IncidentBook
from tlsy.rules_engine.handlers.memory import TenantMemory
from tlsy.rules_engine.handlers.observing import FieldObserver
from tlsy.rules_engine.handlers.refreshes import Refreshes
from tlsy.rules_engine.handlers.turn import SLICE, Pace, Turn
from tlsy.rules_engine.ports import SetState
from tlsy.runtime.logging import get_logger
from tlsy.tenancy.errors import TenancyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

    from tlsy.contracts.ingestion.v1 import ingestion_pb2
    from tlsy.rules_engine.domain.ast import Rule
    from tlsy.rules_engine.domain.codegen import Version
    from tlsy.rules_engine.domain.engine import EngineLimits
    from tlsy.rules_engine.domain.incident import ReopenPolicy
    from tlsy.rules_engine.domain.problems import RuleLimits
    from tlsy.rules_engine.domain.turn import GroupKey
    from tlsy.rules_engine.handlers.effects import Effects
    from tlsy.rules_engine.handlers.halting import Halting
    from tlsy.rules_engine.handlers.memory import Memories
    from tlsy.rules_engine.handlers.metrics import RulesMetrics
    from tlsy.rules_engine.ports import EngineStates, Incidents, ObservedFields
    from tlsy.tenancy.unit_of_work import UnitOfWork

_NEVER_SET: Final = SetState(0, UUID(int=0), 0)
_NOT_LIVE: Final = -1
#: A usage fact alone is not worth waking the relay.
_SWEEP_AFTER_S: Final = 0.001
_ROWS: Final = 2_000
#: Of the database, and not of what it was given.
_ELSEWHERE: Final = (
    TenancyError,
    EventLogError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    OSError,
)
#: The database cannot hold what evaluation made of this tenant's events.
_NOT_STORABLE: Final = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationLimits:
    """Bounds and policies of evaluation."""

    engine: EngineLimits
    rules: RuleLimits
    reopen: ReopenPolicy
    max_fields: int


class Evaluation:
    """One per process; keeps engines in `memories`. Its callers hold the partition's fence."""

    def __init__(
        self,
        *,
        memories: Memories,
        states: EngineStates,
        incidents: Incidents,
        observed: ObservedFields,
        effects: Effects,
        halting: Halting,
        limits: EvaluationLimits,
        metrics: RulesMetrics,
    ) -> None:
        self._memories = memories
        self._states = states
        self._incidents = incidents
        self._observed = observed
        self._effects = effects
        self._halting = halting
        self._limits = limits
        self._metrics = metrics
        self._logger = get_logger("evaluation")

    async def judge(
        self,
        tx: UnitOfWork,
        slug: str,
        partition: int,
        records: Sequence[Sequence[ingestion_pb2.Event]],
        *,
        again: bool,
    ) -> None:
        """Judges the events of some records, in order.

        Raises TenantPaused; and RetryableError if they are to be judged `again`, as they were not yet.
        """
        pace = Pace(self._effects.monotonic)

        async def work() -> None:
            turn = await self._enter(tx, partition)
            now_us = self._effects.now_us()
            for events in records:
                turn.memory.observer.look(events, now_us)
                if turn.memory.compiled.versions:
                    await self._judge_record(turn, events, now_us, pace)
            await self._leave(tx, slug, turn)

        await self._without_the_guilty(tx, slug, work, again=again)
        self._metrics.evaluation_s.observe(pace.total_s)

    async def advance(self, tx: UnitOfWork, slug: str, partition: int, *, until_us: int | None) -> None:
        """Puts the live rules in force and writes what waits in memory. Raises TenantPaused.

        Processing time passes up to `until_us`, and timers run; none while events wait, whose sources would
        look silent.
        """

        async def work() -> None:
            turn = await self._enter(tx, partition)
            if until_us is not None:
                await turn.work_off(turn.memory.engine.advancing(until_us, SLICE))
            await self._leave(tx, slug, turn)

        await self._without_the_guilty(tx, slug, work, again=True)

    async def _without_the_guilty(
        self, tx: UnitOfWork, slug: str, work: Callable[[], Awaitable[None]], *, again: bool
    ) -> None:
        """Works, and if a rule fails works again without it. Nothing of what was done is left then.

        Only with `again`: a savepoint in each transaction would cost all of them for the few that fail.
        """
        while True:
            if again:
                # Before the rule set is locked: to update in it what was locked outside of it costs more.
                await tx.set_savepoint()
            try:
                await work()
            except _NOT_STORABLE as error:
                self._memories.drop(tx.tenant_id)
                raise TenantPaused(REASON, "what was judged cannot be stored") from error
            except _ELSEWHERE:
                self._memories.drop(tx.tenant_id)
                raise
            except Exception as error:
                self._memories.drop(tx.tenant_id)
                if not again:
                    self._logger.warning("judging is tried again", exc_info=error)
                    raise RetryableError(REASON, "the events could not be judged at once") from error
                await tx.undo()
                # It stays locked.
                await self._states.enter(tx)
                if isinstance(error, JudgingFailed):
                    await self._halting.halt(tx, slug, error)
                else:
                    await self._halting.halt_proven(tx, slug, error)
            except BaseException:
                self._memories.drop(tx.tenant_id)
                raise
            else:
                return

    async def _judge_record(
        self, turn: Turn, events: Sequence[ingestion_pb2.Event], now_us: int, pace: Pace
    ) -> None:
        engine, matched = turn.memory.engine, turn.memory.compiled.programs
        start = 0
        while start < len(events):
            size = pace.size
            pace.begin()
            part = list(engine_events(events[start : start + size], matched))
            for transitions in engine.feeding(part, now_us, SLICE):
                pace.pause()
                await turn.note(transitions)
                await asyncio.sleep(0)
                pace.begin()
            pace.end()
            start += size
        await turn.settle()
        turn.judged += len(events)

    async def _enter(self, tx: UnitOfWork, partition: int) -> Turn:
        state = await self._states.enter(tx) or _NEVER_SET
        memory = self._memories.get(tx.tenant_id)
        if memory is None or memory.stamp != state.stamp or memory.partition != partition:
            memory = await self._load(tx, state, partition)
        book = IncidentBook(self._limits.reopen, self._effects.new_id)
        turn = Turn(tx, state, memory, self._incidents, book)
        if memory.version != state.version:
            live = self._readable(await self._states.live(tx), memory.rules)
            memory.rules = {**memory.rules, **dict(live)}
            memory.compiled = await compiled(live, memory.compiled)
            await turn.work_off(memory.engine.replacing(memory.compiled, self._effects.now_us(), SLICE))
        if state.clears:
            await self._clear(turn, await self._incidents.take_clears(tx))
        return turn

    async def _load(self, tx: UnitOfWork, state: SetState, partition: int) -> TenantMemory:
        """An engine as the database has it: also with versions that went out of force while nobody looked."""
        live = self._readable(await self._states.live(tx), {}) if state.version else []
        rows = await self._states.load(tx) if state.version else ()
        known = {version for version, _ in live} | {SOURCE_OWNER, REFRESHES_OWNER}
        gone = {VersionId(row.owner) for row in rows if row.owner not in known}
        past = self._readable(await self._states.documents(tx, gone), {}) if gone else []
        made = await compiled([*live, *past], None)
        engine = Engine(made, self._limits.engine)
        since_us = self._memories.followed_since_us(tx.tenant_id, partition, self._effects.now_us())
        await load(engine, rows, since_us)
        return TenantMemory(
            partition=partition,
            engine=engine,
            compiled=made,
            rules=dict(made.versions),
            version=_NOT_LIVE if past else state.version,
            stamp=state.stamp,
            observer=FieldObserver(await self._observed.load(tx), self._limits.max_fields),
            refreshes=Refreshes(row for row in rows if row.owner == REFRESHES_OWNER),
        )

    def _readable(
        self, documents: Iterable[tuple[VersionId, str]], known: Mapping[VersionId, Rule]
    ) -> list[Version]:
        found: list[Version] = []
        for version, document in documents:
            try:
                rule = known.get(version) or load_rule(document.encode(), self._limits.rules)
                found.append((version, rule))
            except NotCanonicalError:
                self._logger.exception("a stored rule is not in force", version=version)
        return found

    async def _clear(self, turn: Turn, clears: Iterable[tuple[RuleName, DedupKey]]) -> None:
        memory, book = turn.memory, turn.book
        by_name: dict[RuleName, set[DedupKey]] = {}
        for name, key in clears:
            by_name.setdefault(name, set()).add(key)
            refreshed = memory.refreshes.take(key)
            if refreshed is not None:
                if not book.knows(key):
                    book.learn([key], await self._incidents.current(turn.tx, [key]))
                book.count(key, refreshed.times)
        for _, rule in memory.compiled.versions:
            if rule.name in by_name:
                matches = _matcher(rule, by_name[rule.name])
                await turn.work_off(memory.engine.clearing(rule.name, matches, SLICE))

    async def _leave(self, tx: UnitOfWork, slug: str, turn: Turn) -> None:
        """Stores everything; from here on the engine is ahead of the database until the commit."""
        memory, now_us = turn.memory, self._effects.now_us()
        told = await self._store_incidents(tx, slug, turn)
        stamp = self._effects.new_id()
        refreshed, changes = memory.refreshes.leave(now_us, str(stamp))
        if refreshed:
            await self._incidents.refresh(tx, refreshed)
        turn.store(changes)
        fields, gone = memory.observer.take(now_us)
        if fields:
            await self._observed.save(tx, fields, gone)
        if turn.rows or turn.set_state.clears:
            memory.stamp = stamp
            rows = list(turn.rows.values())
            for start in range(0, max(len(rows), 1), _ROWS):
                await self._states.save(tx, rows[start : start + _ROWS], memory.stamp)
        memory.version = turn.set_state.version
        memory.rules = dict(memory.compiled.versions)
        memory.changed = True
        # Only now: of one that had to go meanwhile nobody would know when it is due.
        self._memories.put(tx.tenant_id, memory)
        if turn.judged:
            patience_s = 0 if told else _SWEEP_AFTER_S
            self._effects.used(tx, "rules.evaluated", turn.judged, sweep_after_s=patience_s)
        self._count(turn)

    async def _store_incidents(self, tx: UnitOfWork, slug: str, turn: Turn) -> bool:
        """Whether anything was published."""
        book = turn.book
        changed, told = book.close()
        for start in range(0, len(changed), SLICE):
            await self._incidents.put(tx, changed[start : start + SLICE])
        for number, (stored, change) in enumerate(told, 1):
            self._effects.incident_changed(tx, stored, change, slug)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        if book.opened:
            self._effects.used(tx, "incidents.opened", book.opened)
        return bool(told)

    def _count(self, turn: Turn) -> None:
        memory, book = turn.memory, turn.book
        counters = memory.engine.counters
        self._metrics.left_out_since(memory.counted, counters)
        if counters.groups_refused and not memory.counted.groups_refused:
            # Once, until the tenant is loaded again: no metric says whose they are.
            self._logger.warning("groups beyond a limit are not tracked", groups=memory.engine.turn.groups)
        memory.counted = counters
        self._metrics.incidents.labels("opened").inc(book.opened)
        self._metrics.incidents.labels("resolved").inc(book.resolved)
        if book.refused or book.untold:
            self._logger.warning("a flood of incidents", not_opened=book.refused, not_told=book.untold)
            self._metrics.left_out.labels("incidents_refused").inc(book.refused)
            self._metrics.left_out.labels("changes_untold").inc(book.untold)


def _matcher(rule: Rule, keys: Collection[DedupKey]) -> Callable[[GroupKey], bool]:
    return lambda group: dedup_key(rule, group) in keys
