"""How protobuf writes a message's fields, for who asks something of one that is not parsed, or cannot be."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

#: How a field is written, by the last three bits of its tag, and how long those of one length are.
_VARINT: Final = 0
DELIMITED: Final = 2
_FIXED_BYTES: Final = MappingProxyType({1: 8, 5: 4})
#: All but groups, which nobody of ours sends.
KINDS: Final = frozenset({_VARINT, DELIMITED, *_FIXED_BYTES})

_GOES_ON: Final = 0x80


def read_field(raw: bytes, at: int, max_bits: int = 64) -> tuple[int, int, int]:
    """Tag of the field at `at`, and where what it holds begins and ends, which may be behind the end.

    Of what is none of KINDS nothing is read but the tag. `max_bits`: of tag and length. Raises as `_varint`.
    """
    tag, at = _varint(raw, at, max_bits)
    kind = tag & 7
    if kind == DELIMITED:
        length, at = _varint(raw, at, max_bits)
        return tag, at, at + length
    if kind == _VARINT:
        return tag, at, _varint(raw, at)[1]
    return tag, at, at + _FIXED_BYTES.get(kind, 0)


def _varint(raw: bytes, at: int, max_bits: int = 64) -> tuple[int, int]:
    """A number, and where it ends.

    Raises:
        ValueError: it goes on behind `max_bits`, and might for megabytes.
        IndexError: it goes on behind the end.
    """
    value = 0
    for shift in range(0, max_bits, 7):
        value |= (raw[at] & 0x7F) << shift
        at += 1
        if raw[at - 1] < _GOES_ON:
            return value, at
    raise ValueError("no number")
