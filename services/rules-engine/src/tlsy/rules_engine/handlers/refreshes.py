"""How often rules fired again for incidents that are open: counted in the incidents every few seconds only.

Until then it is state like any other: a transaction writes one row of what it changed in the counts. A row is
as large as the transaction's share and never written again; the rows go when the incidents have the counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlsy.rules_engine.domain.incident import DedupKey
from tlsy.rules_engine.domain.rows import REFRESHES_OWNER, StateRow, pack, unpack
from tlsy.rules_engine.ports import Refreshed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_EVERY_US: Final = 3_000_000


class Refreshes:
    """Of one tenant; from the rows of the transactions since they were counted last."""

    def __init__(self, rows: Iterable[StateRow]) -> None:
        self._pending: dict[DedupKey, Refreshed] = {}
        self._changed: dict[DedupKey, int] = {}
        self._names: list[str] = []
        self._counted_us = 0
        for row in rows:
            self._names.append(row.key)
            for key, times, at_us in unpack(row.payload or b"\x90"):
                before = self._pending.get(key, Refreshed(0, 0))
                self._pending[DedupKey(key)] = Refreshed(before.times + times, max(before.at_us, at_us))
        self._pending = {key: found for key, found in self._pending.items() if found.times}

    def add(self, key: DedupKey, at_us: int) -> None:
        """Its rule fired again."""
        before = self._pending.get(key, Refreshed(0, at_us))
        self._pending[key] = Refreshed(before.times + 1, max(before.at_us, at_us))
        self._changed[key] = self._changed.get(key, 0) + 1

    def take(self, key: DedupKey) -> Refreshed | None:
        """What is to be counted for a key, by the caller."""
        taken = self._pending.pop(key, None)
        if taken is not None:
            self._changed[key] = self._changed.get(key, 0) - taken.times
        return taken

    def due_us(self) -> int | None:
        """When there is something to count."""
        return self._counted_us + _EVERY_US if self._pending else None

    def leave(self, now_us: int, name: str) -> tuple[Mapping[DedupKey, Refreshed], list[StateRow]]:
        """At a transaction's end: what it is to count, and the rows to write. No other has that name."""
        due: dict[DedupKey, Refreshed] = {}
        # Before the last time only if the clock was set back: nobody waits until that comes again.
        if self._pending and not self._counted_us <= now_us < self._counted_us + _EVERY_US:
            due, self._pending, self._counted_us = self._pending, {}, now_us
        changed, self._changed = self._changed, {}
        if not self._pending:
            names, self._names = self._names, []
            return due, [StateRow(REFRESHES_OWNER, gone, None) for gone in names]
        none = Refreshed(0, 0)
        share = [(key, times, self._pending.get(key, none).at_us) for key, times in changed.items()]
        if not share:
            return due, []
        self._names.append(name)
        return due, [StateRow(REFRESHES_OWNER, name, pack(share))]
