"""Principals whose tokens are refused although they have not expired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tlsy.runtime.clock import Clock
    from tlsy.runtime.ids import PrincipalName, TenantId

_PRUNE_EVERY: Final = 1024


class DenyList:
    """Tokens of a principal issued at or before its last revocation are refused.

    Kept until no token that it concerns can be valid any more; small, because tokens live for minutes.

    Attributes:
        complete: whether all revocations have been read once; before, nobody can be told to be welcome.
    """

    __slots__ = ("_clock", "_entries", "_since_prune", "complete")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[tuple[TenantId, PrincipalName], tuple[float, float]] = {}
        self._since_prune = 0
        self.complete = False

    def revoke(
        self, tenant_id: TenantId, principal: PrincipalName, *, revoked_at: float, expires_at: float
    ) -> None:
        """Refuse this principal's tokens issued until `revoked_at`; forget it after `expires_at` (Unix time).

        Told out of order or twice, the latest revocation holds.
        """
        known = self._entries.get((tenant_id, principal))
        if known is not None and known[0] >= revoked_at:
            return
        self._entries[(tenant_id, principal)] = (revoked_at, expires_at)
        self._since_prune += 1
        if self._since_prune >= _PRUNE_EVERY:
            self._prune()

    def refuses(self, tenant_id: TenantId, principal: PrincipalName, issued_at: float) -> bool:
        """Whether a token issued then (Unix time) is refused."""
        entry = self._entries.get((tenant_id, principal))
        return entry is not None and issued_at <= entry[0]

    def __len__(self) -> int:
        return len(self._entries)

    def _prune(self) -> None:
        now = self._clock.now().timestamp()
        self._entries = {key: entry for key, entry in self._entries.items() if entry[1] > now}
        self._since_prune = 0
