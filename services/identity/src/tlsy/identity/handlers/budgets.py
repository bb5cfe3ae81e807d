"""Budgets in memory: with N replicas there are N times as many."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from tlsy.identity.domain.lockout import Budget, refill
from tlsy.rpc.errors import ResourceExhausted

if TYPE_CHECKING:
    from uuid import UUID

    from tlsy.identity.domain.api_keys import PresentedKey
    from tlsy.runtime.clock import Clock

_MAX_KEYS: Final = 10_000
_K = TypeVar("_K")


class Budgets(Generic[_K]):
    """A bucket per key, filled by `per_s` up to `size`; of 10,000 the one spent longest ago is forgotten."""

    def __init__(self, clock: Clock, *, size: float, per_s: float) -> None:
        self._clock = clock
        self._size = size
        self._per_s = per_s
        self._left: OrderedDict[_K, Budget] = OrderedDict()

    def wait_s(self, key: _K) -> float:
        """How long until there is something to spend; 0: there is."""
        return max(0.0, 1.0 - self._now(key).tokens) / self._per_s

    def spend(self, key: _K) -> None:
        """Take one, if there is one."""
        budget = self._now(key)
        self._left[key] = replace(budget, tokens=max(0.0, budget.tokens - 1.0))
        self._left.move_to_end(key)
        if len(self._left) > _MAX_KEYS:
            self._left.popitem(last=False)

    def _now(self, key: _K) -> Budget:
        return refill(self._left.get(key), self._clock.monotonic(), size=self._size, per_s=self._per_s)


class ExchangeLimits:
    """How often keys are exchanged: each one by itself, and all that are refused of a tenant together.

    Counted per key with its secret: who knows a key's name alone takes nothing from it. While too many of a
    tenant are refused, its keys that were good lately go on, and so do other tenants' keys.
    """

    def __init__(self, each: Budgets[PresentedKey], refused: Budgets[UUID]) -> None:
        self._each = each
        self._refused = refused
        self._good: OrderedDict[PresentedKey, None] = OrderedDict()

    def begin(self, key: PresentedKey) -> None:
        """Count one exchange; raises ResourceExhausted, reason EXCHANGE_RATE, if that is too many."""
        refused_s = 0.0 if key in self._good else self._refused.wait_s(key.tenant_id)
        wait_s = self._each.wait_s(key) or refused_s
        if wait_s > 0:
            raise ResourceExhausted(
                "EXCHANGE_RATE", "Too many exchanges of API keys; keep the token.", retry_after_s=wait_s
            )
        self._each.spend(key)

    def good(self, key: PresentedKey) -> None:
        """It was."""
        self._good[key] = None
        self._good.move_to_end(key)
        if len(self._good) > _MAX_KEYS:
            self._good.popitem(last=False)

    def refused(self, key: PresentedKey) -> None:
        """It was not good, or not any more; its tenant is one that there is."""
        self._good.pop(key, None)
        self._refused.spend(key.tenant_id)
