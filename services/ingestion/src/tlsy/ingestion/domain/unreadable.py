"""Where a batch that cannot be read as a message stops being one."""

from __future__ import annotations

from typing import Final

from tlsy.contracts.wire import DELIMITED, KINDS, read_field
from tlsy.ingestion.domain.events import MAX_EVENTS

#: Of a tag and of a length.
_MAX_BITS: Final = 32
#: A parent, events, and what is wrong behind them: while millions are looked at, nobody else is answered.
_MAX_FIELDS: Final = MAX_EVENTS + 2


def unreadable_from(batch: bytes, number: int) -> str:
    """The path of the first event that does not stand whole, which may be one behind the last: "events[3]".

    Args:
        batch: a message that the parser refused.
        number: of its field `events`.

    Returns:
        "" where every field stands whole: then a text is no UTF-8. A group, which nobody of ours sends,
        counts as what cannot be read, and so does what is behind more fields than a batch has.
    """
    at = events = 0
    try:
        for _ in range(_MAX_FIELDS):
            if at == len(batch):
                return ""
            tag, _, at = read_field(batch, at, _MAX_BITS)
            if tag & 7 not in KINDS or at > len(batch) or not 0 < tag >> 3 < 1 << _MAX_BITS - 3:
                break
            events += tag == number << 3 | DELIMITED
    except (IndexError, ValueError):
        pass  # it breaks off in the field after these
    return f"events[{events}]"
