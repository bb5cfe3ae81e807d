"""Identifiers: their types, the two that are fixed, and UUIDv7 from a clock and a source of randomness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NewType
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsy.runtime.clock import Clock

TenantId = NewType("TenantId", UUID)
Slug = NewType("Slug", str)
PrincipalName = NewType("PrincipalName", str)

#: The provider is itself a tenant, with the same id in every installation: services sign tokens of it before
#: they have seen any catalogue.
PLATFORM_TENANT_ID: Final = TenantId(UUID("00000000-0000-7000-8000-000000000001"))
PLATFORM_SLUG: Final = Slug("platform")

SERVICE_PREFIX: Final = "services/"

_SEQUENCE_BITS: Final = 12
_SEQUENCE_SEED_MASK: Final = (
    0x3FF  # seeded in the lower quarter, so that a millisecond has room for 3,000 more
)
_TAIL_BYTES: Final = 8
_TAIL_MASK: Final = (1 << 62) - 1


def service_principal(service: str) -> PrincipalName:
    """The name of a service where it acts by itself: "services/rules-engine"."""
    return PrincipalName(f"{SERVICE_PREFIX}{service}")


class Uuid7:
    """Makes UUIDv7 values that grow strictly within this source.

    48 bits of milliseconds, a 12-bit sequence that starts at random in each millisecond, 62 random bits. When
    the clock steps back, or the sequence overflows, the last millisecond used is kept or advanced: order is
    worth more than a millisecond of truth. Not for secrets: the time is readable.
    """

    __slots__ = ("_clock", "_last_ms", "_random", "_sequence")

    def __init__(self, clock: Clock, random: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._random = random
        self._last_ms = -1
        self._sequence = 0

    def __call__(self) -> UUID:
        """The next id."""
        entropy = int.from_bytes(self._random(_TAIL_BYTES + 2), "big")
        now_ms = int(self._clock.now().timestamp() * 1000)
        if now_ms > self._last_ms:
            self._last_ms = now_ms
            self._sequence = (entropy >> 64) & _SEQUENCE_SEED_MASK
        else:
            self._sequence += 1
            if self._sequence >> _SEQUENCE_BITS:
                self._last_ms += 1
                self._sequence = 0
        return UUID(
            int=(self._last_ms << 80)
            | (0x7 << 76)
            | (self._sequence << 64)
            | (0b10 << 62)
            | (entropy & _TAIL_MASK)
        )
