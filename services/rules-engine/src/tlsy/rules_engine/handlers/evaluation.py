"""Evaluates a tenant's rules inside one transaction: what the engine did and what is stored commit together.

The rule set's row is locked first and for the whole transaction. It tells which rules are live, so that no
event is ever judged by old ones, and whether the engine in memory is what the database has; and no two
transactions of a tenant touch its engine at a time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from uuid import UUID

from tlsy.rules_engine.domain.ast import VersionId
from tlsy.rules_engine.domain.canonical import NotCanonicalError, load_rule
from tlsy.rules_engine.domain.compiler import compile_rules
from tlsy.rules_engine.domain.engine import Engine
from tlsy.rules_engine.domain.incident import dedup_key
from tlsy.rules_engine.domain.rows import SOURCE_OWNER
from tlsy.rules_engine.handlers.engine_events import engine_events
from tlsy.rules_engine.handlers.incident_book import IncidentBook
from tlsy.rules_engine.handlers.memory import REFRESH_US, TenantMemory
from tlsy.rules_engine.handlers.observing import FieldObserver
from tlsy.rules_engine.ports import Refreshed, SetState
from tlsy.runtime.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tlsy.contracts.ingestion.v1 import ingestion_pb2
    from tlsy.rules_engine.domain.ast import Rule
    from tlsy.rules_engine.domain.codegen import Version
    from tlsy.rules_engine.domain.engine import Effects as EngineEffects
    from tlsy.rules_engine.domain.engine import EngineLimits
    from tlsy.rules_engine.domain.incident import DedupKey, ReopenPolicy
    from tlsy.rules_engine.domain.problems import RuleLimits
    from tlsy.rules_engine.domain.rows import StateRow
    from tlsy.rules_engine.domain.turn import GroupKey, Transition
    from tlsy.rules_engine.handlers.effects import Effects
    from tlsy.rules_engine.handlers.memory import Memories
    from tlsy.rules_engine.ports import EngineStates, Incidents, ObservedFields
    from tlsy.tenancy.unit_of_work import UnitOfWork

_NEVER_SET: Final = SetState(0, UUID(int=0), 0)
_NOT_LIVE: Final = -1
#: A usage fact alone is not worth waking the relay.
_SWEEP_AFTER_S: Final = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationLimits:
    """Bounds and policies of evaluation."""

    engine: EngineLimits
    rules: RuleLimits
    reopen: ReopenPolicy
    max_fields: int


@dataclass(slots=True)
class _Turn:
    """What one transaction did so far: transitions in order, and the last state of each row."""

    set_state: SetState
    transitions: list[Transition] = field(default_factory=list)
    rows: dict[tuple[str, str], StateRow] = field(default_factory=dict)
    judged: int = 0

    def add(self, effects: EngineEffects) -> None:
        self.transitions += effects.transitions
        for row in effects.rows:
            self.rows[row.owner, row.key] = row


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
        limits: EvaluationLimits,
    ) -> None:
        self._memories = memories
        self._states = states
        self._incidents = incidents
        self._observed = observed
        self._effects = effects
        self._limits = limits
        self._logger = get_logger("evaluation")

    async def judge(
        self, tx: UnitOfWork, slug: str, partition: int, records: Sequence[Sequence[ingestion_pb2.Event]]
    ) -> None:
        """Judges the events of some records, in order."""
        try:
            memory, turn = await self._enter(tx, partition)
            now_us = self._effects.now_us()
            for events in records:
                memory.observer.look(events, now_us)
                if memory.compiled.versions:
                    matched = memory.compiled.programs
                    turn.add(memory.engine.apply(engine_events(events, matched), now_us))
                    turn.judged += len(events)
                    # Others get a turn between two records: judging one is work without a pause.
                    await asyncio.sleep(0)
            await self._leave(tx, slug, memory, turn)
        except BaseException:
            self._memories.drop(tx.tenant_id)
            raise

    async def advance(self, tx: UnitOfWork, slug: str, partition: int, *, time_passes: bool) -> None:
        """Puts the live rules in force and writes what waits in memory.

        With `time_passes` timers run too; not while events wait, whose sources would look silent.
        """
        try:
            memory, turn = await self._enter(tx, partition)
            if time_passes:
                turn.add(memory.engine.advance(self._effects.now_us()))
            await self._leave(tx, slug, memory, turn)
        except BaseException:
            self._memories.drop(tx.tenant_id)
            raise

    async def _enter(self, tx: UnitOfWork, partition: int) -> tuple[TenantMemory, _Turn]:
        state = await self._states.enter(tx) or _NEVER_SET
        turn = _Turn(state)
        memory = self._memories.get(tx.tenant_id)
        if memory is None or memory.stamp != state.stamp or memory.partition != partition:
            memory = await self._load(tx, state, partition)
            self._memories.put(tx.tenant_id, memory)
        if memory.version != state.version:
            live = self._readable(await self._states.live(tx), memory.rules)
            memory.rules = {**memory.rules, **dict(live)}
            memory.compiled = compile_rules(live, memory.compiled)
            turn.add(memory.engine.replace(memory.compiled, self._effects.now_us()))
        if state.clears:
            await self._clear(tx, memory, turn)
        return memory, turn

    async def _load(self, tx: UnitOfWork, state: SetState, partition: int) -> TenantMemory:
        """An engine as the database has it: also with versions that went out of force while nobody looked."""
        live = self._readable(await self._states.live(tx), {}) if state.version else []
        rows = await self._states.load(tx) if state.version else ()
        known = {version for version, _ in live} | {SOURCE_OWNER}
        gone = {VersionId(row.owner) for row in rows if row.owner not in known}
        past = self._readable(await self._states.documents(tx, gone), {}) if gone else []
        compiled = compile_rules([*live, *past])
        engine = Engine(compiled, self._limits.engine)
        engine.load(rows, self._effects.now_us())
        return TenantMemory(
            partition=partition,
            engine=engine,
            compiled=compiled,
            rules=dict(compiled.versions),
            version=_NOT_LIVE if past else state.version,
            stamp=state.stamp,
            observer=FieldObserver(await self._observed.load(tx), self._limits.max_fields),
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

    async def _clear(self, tx: UnitOfWork, memory: TenantMemory, turn: _Turn) -> None:
        by_name: dict[str, list[Rule]] = {}
        for rule in memory.rules.values():
            by_name.setdefault(rule.name, []).append(rule)
        for name, key in await self._incidents.take_clears(tx):
            memory.refreshed.pop(key, None)
            for rule in by_name.get(name, ()):
                turn.add(memory.engine.clear(name, _matcher(rule, key)))

    async def _leave(self, tx: UnitOfWork, slug: str, memory: TenantMemory, turn: _Turn) -> None:
        """Stores everything; from here on the engine is ahead of the database until the commit."""
        now_us = self._effects.now_us()
        told = await self._keep_incidents(tx, slug, memory, turn, now_us)
        fields = memory.observer.take(now_us)
        if fields:
            await self._observed.save(tx, fields)
        if turn.rows or turn.set_state.clears:
            memory.stamp = self._effects.new_id()
            await self._states.save(tx, list(turn.rows.values()), memory.stamp)
        memory.version = turn.set_state.version
        memory.rules = dict(memory.compiled.versions)
        memory.changed = True
        if turn.judged:
            patience_s = 0 if told else _SWEEP_AFTER_S
            self._effects.used(tx, "rules.evaluated", turn.judged, sweep_after_s=patience_s)

    async def _keep_incidents(
        self, tx: UnitOfWork, slug: str, memory: TenantMemory, turn: _Turn, now_us: int
    ) -> bool:
        """Whether anything was published."""
        steps: list[tuple[DedupKey, Transition]] = []
        for transition in turn.transitions:
            key = dedup_key(memory.rules[transition.version], transition.group)
            if transition.kind != "refresh":
                steps.append((key, transition))
                continue
            before = memory.refreshed.get(key, Refreshed(0, transition.at_us))
            memory.refreshed[key] = Refreshed(before.times + 1, max(before.at_us, transition.at_us))
        told = await self._move(tx, slug, memory, steps) if steps else False
        if memory.refreshed and now_us >= memory.refreshed_us + REFRESH_US:
            await self._incidents.refresh(tx, memory.refreshed)
            memory.refreshed.clear()
            memory.refreshed_us = now_us
        return told

    async def _move(
        self,
        tx: UnitOfWork,
        slug: str,
        memory: TenantMemory,
        steps: Sequence[tuple[DedupKey, Transition]],
    ) -> bool:
        current = await self._incidents.current(tx, {key for key, _ in steps})
        book = IncidentBook(current, self._limits.reopen, self._effects.new_id)
        for key in {key for key, _ in steps}:
            refreshed = memory.refreshed.pop(key, None)
            if refreshed is not None:
                book.refresh(key, refreshed)
        for key, transition in steps:
            if transition.kind == "open":
                book.open(key, memory.rules[transition.version], transition)
            else:
                book.resolve(key, transition)
        changed = book.changed()
        if changed:
            await self._incidents.put(tx, changed)
        for stored, change in book.told():
            self._effects.incident_changed(tx, stored, change, slug)
        if book.opened:
            self._effects.used(tx, "incidents.opened", book.opened)
        return bool(book.told())


def _matcher(rule: Rule, key: DedupKey) -> Callable[[GroupKey], bool]:
    return lambda group: dedup_key(rule, group) == key
