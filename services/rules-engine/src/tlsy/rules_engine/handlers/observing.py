"""Which fields a tenant's events have: what rules are validated against.

A sample of each record is looked at: every event of a small one, every n-th of a large one, beginning at
another place each time, so that what comes again and again is seen. What was seen is written at most every
few seconds; a write that is rolled back is made up for when the field is seen again after `REFRESH_US`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from tlsy.rules_engine.ports import ObservedField

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
    from tlsy.rules_engine.domain.events import ValueType

FLUSH_US: Final = 3_000_000
REFRESH_US: Final = 60_000_000
_SAMPLED: Final = 16
_MAX_DEPTH: Final = 4
_MAX_PATH_CHARS: Final = 200
_MAX_MEMBERS: Final = 200  # of data, looked at per event


class FieldObserver:
    """What one tenant's events have had; of more than `max_fields` the longest unseen make room."""

    def __init__(self, known: Iterable[ObservedField], max_fields: int) -> None:
        self._known = {(field.event_type, field.path): field for field in known}
        self._pending: dict[tuple[str, str], ObservedField] = {}
        self._max_fields = max_fields
        self._gone: set[tuple[str, str]] = set()
        self._full_until_us = 0
        self._offset = 0
        self._flushed_us = 0

    def look(self, events: Sequence[pb.Event], now_us: int) -> None:
        """Notes the fields of a sample."""
        step = max(1, len(events) // _SAMPLED)
        self._offset += 1
        for index in range(self._offset % step, len(events), step):
            event = events[index]
            for path, kind in _fields_of(event):
                self._note(event.type, path, kind, now_us)

    def due_us(self) -> int | None:
        """When there is something to write."""
        return self._flushed_us + FLUSH_US if self._pending else None

    def take(self, now_us: int) -> tuple[Sequence[ObservedField], Sequence[tuple[str, str]]]:
        """What is to be written and what to be deleted now; nothing if it is too soon."""
        # Before the last time only if the clock was set back: nobody waits until that comes again.
        if not self._pending or self._flushed_us <= now_us < self._flushed_us + FLUSH_US:
            return (), ()
        self._flushed_us = now_us
        taken = list(self._pending.values()), sorted(self._gone)
        self._pending.clear()
        self._gone.clear()
        return taken

    def _note(self, event_type: str, path: str, kind: ValueType, now_us: int) -> None:
        key = (event_type, path)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= self._max_fields and not self._make_room(now_us):
                return
            types: frozenset[ValueType] = frozenset({kind})
        elif kind not in known.types:
            types = known.types | {kind}
        elif now_us - known.last_seen_us < REFRESH_US:
            return
        else:
            types = known.types
        self._gone.discard(key)
        self._known[key] = self._pending[key] = ObservedField(event_type, path, types, now_us)

    def _make_room(self, now_us: int) -> bool:
        """Gives up the longest unseen field; one that is still coming has been seen lately."""
        if now_us < self._full_until_us:
            return False
        key, oldest = min(self._known.items(), key=lambda item: item[1].last_seen_us)
        if now_us - oldest.last_seen_us <= 2 * REFRESH_US:
            self._full_until_us = now_us + FLUSH_US
            return False
        del self._known[key]
        self._pending.pop(key, None)
        self._gone.add(key)
        return True


def _fields_of(event: pb.Event) -> Iterator[tuple[str, ValueType]]:
    yield "source", "string"
    yield "severity", "severity"
    if event.subject:
        yield "subject", "string"
    if event.site:
        yield "site", "string"
    if event.HasField("value"):
        yield "value", "number"
    for key in event.labels:
        yield f"labels.{key}", "string"
    if event.data:
        yield from _members_of(event.data)


def _members_of(data: bytes) -> Iterator[tuple[str, ValueType]]:
    try:
        root = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    stack = [("data", root, 0)]
    seen = 0
    while stack:
        path, node, depth = stack.pop()
        if isinstance(node, dict):
            if depth < _MAX_DEPTH:
                stack.extend(
                    (f"{path}.{name}", member, depth + 1)
                    for name, member in node.items()
                    if name and "." not in name and len(path) + len(name) < _MAX_PATH_CHARS
                )
            continue
        seen += 1
        if seen > _MAX_MEMBERS:
            return
        if isinstance(node, bool):
            yield path, "boolean"
        elif isinstance(node, int | float):
            yield path, "number"
        elif isinstance(node, str):
            yield path, "string"
