"""Engine state as rows that a table can hold, one per source and per (rule version, group)."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from tlsy.rules_engine.domain.turn import GroupKey, SourceState

SOURCE_OWNER: Final = "source"
REFRESHES_OWNER: Final = "refreshes"
_MSGPACK: Final = msgspec.msgpack.Encoder()
_JSON: Final = msgspec.json.Encoder()
_VALUES: Final = msgspec.json.Decoder(tuple[str | None, ...]).decode


class StateRow(NamedTuple):
    """`owner` is a version id or SOURCE_OWNER, `key` the group values or the source's name as JSON text.

    Rows of REFRESHES_OWNER are not the engine's; see `tlsy.rules_engine.handlers.refreshes`.
    `payload` is opaque, None when the row is to be deleted. (owner, key) is unique.
    """

    owner: str
    key: str
    payload: bytes | None


def row_key(values: GroupKey) -> str:
    """The key of a group's row."""
    return _JSON.encode(values).decode()


def row_values(key: str) -> GroupKey:
    """The inverse of `row_key`."""
    return _VALUES(key)


def pack(value: Any) -> bytes:
    """A payload."""
    return _MSGPACK.encode(value)


def unpack(payload: bytes) -> Any:
    """The inverse of `pack`."""
    return msgspec.msgpack.decode(payload)


def source_row(source: SourceState, horizon_us: int) -> StateRow:
    """A source with those order keys that an acceptable event could still be older than."""
    cut_us = source.max_us - horizon_us
    newest = [item for item in source.newest.items() if item[1] > cut_us]
    return StateRow(SOURCE_OWNER, source.row_key, pack((source.max_us, newest, source.seen_us)))


def load_source(row: StateRow, since_us: int) -> SourceState:
    """A source, heard of at `since_us` or later: an outage of ours, which ended then, makes nobody idle."""
    assert row.payload is not None  # noqa: S101 - deleted rows are not stored
    (name,) = row_values(row.key)
    max_us, newest, seen_us = unpack(row.payload)
    keys: dict[GroupKey, int] = {tuple(key): at_us for key, at_us in newest}
    return SourceState(name or "", row.key, max_us, max(seen_us, since_us), newest=keys)
