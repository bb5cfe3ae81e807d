"""What one transaction of a tenant did so far, in slices so short that everybody else gets a turn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from tlsy.rules_engine.domain.engine import JudgingFailed
from tlsy.rules_engine.domain.incident import dedup_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tlsy.rules_engine.domain.engine import Effects as EngineEffects
    from tlsy.rules_engine.domain.incident import DedupKey
    from tlsy.rules_engine.domain.rows import StateRow
    from tlsy.rules_engine.domain.turn import Transition
    from tlsy.rules_engine.handlers.incident_book import IncidentBook
    from tlsy.rules_engine.handlers.memory import TenantMemory
    from tlsy.rules_engine.ports import Incidents, SetState
    from tlsy.tenancy.unit_of_work import UnitOfWork

SLICE: Final = 200  # transitions, incidents, rows of state: some ms of work
_SLICE_S: Final = 0.003
_MOST_EVENTS: Final = 1_000


class Pace:
    """How many events are judged before others get a turn: as many as lately took about `_SLICE_S`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began_s = 0.0
        self._took_s = 0.0
        self.size = 50
        self.total_s = 0.0

    def begin(self) -> None:
        """A slice begins, or goes on."""
        self._began_s = self._clock()

    def pause(self) -> None:
        """Others get a turn within it."""
        self._took_s += self._clock() - self._began_s

    def end(self) -> None:
        """It ends: the next one may be up to twice as long, and as short as it has to be."""
        self.pause()
        took_s, self._took_s = self._took_s, 0.0
        self.total_s += took_s
        grown = self.size * min(_SLICE_S / max(took_s, 1e-6), 2)
        self.size = max(1, min(int(grown), _MOST_EVENTS))


class Turn:
    """Takes what the engine did, and keeps what is to be stored: the last of each row, and incidents."""

    def __init__(
        self,
        tx: UnitOfWork,
        set_state: SetState,
        memory: TenantMemory,
        incidents: Incidents,
        book: IncidentBook,
    ) -> None:
        self.set_state = set_state
        self.memory = memory
        self.book = book
        self.rows: dict[tuple[str, str], StateRow] = {}
        self.judged = 0
        self.tx = tx
        self._incidents = incidents

    async def add(self, effects: EngineEffects) -> None:
        """Effects, in the order in which they came about. Raises JudgingFailed."""
        self.store(effects.rows)
        await self.note(effects.transitions)

    def store(self, rows: Iterable[StateRow]) -> None:
        """Rows that are to be written or deleted."""
        self.rows.update(((row.owner, row.key), row) for row in rows)

    async def work_off(self, steps: Iterable[Sequence[Transition]]) -> None:
        """What the engine does in steps, and the rest of it. Raises JudgingFailed."""
        for transitions in steps:
            await self.note(transitions)
            await asyncio.sleep(0)
        await self.settle()

    async def settle(self) -> None:
        """The rest of what the engine has done. Raises JudgingFailed."""
        engine = self.memory.engine
        while not engine.settled:
            await self.add(engine.settle(SLICE))
            await asyncio.sleep(0)

    async def note(self, transitions: Sequence[Transition]) -> None:
        """Transitions, in their order. Raises JudgingFailed."""
        for start in range(0, len(transitions), SLICE):
            if start:
                await asyncio.sleep(0)
            await self._note(transitions[start : start + SLICE])

    async def _note(self, transitions: Sequence[Transition]) -> None:
        memory, keyed = self.memory, []
        for transition in transitions:
            try:
                keyed.append((dedup_key(memory.rules[transition.version], transition.group), transition))
            except Exception as error:
                raise JudgingFailed([transition.version]) from error
        new = {key for key, transition in keyed if transition.kind != "refresh" and not self.book.knows(key)}
        if new:
            self.book.learn(sorted(new), await self._incidents.current(self.tx, new))
        for key, transition in keyed:
            try:
                self._step(key, transition)
            except Exception as error:
                raise JudgingFailed([transition.version]) from error

    def _step(self, key: DedupKey, transition: Transition) -> None:
        memory = self.memory
        if transition.kind == "refresh":
            memory.refreshes.add(key, transition.at_us)
            return
        refreshed = memory.refreshes.take(key)
        if refreshed is not None:
            self.book.refresh(key, refreshed)
        if transition.kind == "open":
            self.book.open(key, memory.rules[transition.version], transition)
        else:
            self.book.resolve(key, transition)
