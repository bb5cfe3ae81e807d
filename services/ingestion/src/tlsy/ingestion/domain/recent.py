"""Which times the latest events had, to notice an id that comes again with another."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlsy.ingestion.domain.events import Row
    from tlsy.runtime.ids import TenantId


class RecentIds:
    """The last `most` events and at most as many before them, of all tenants, by key.

    Forgetting a whole generation at once costs nothing per event; on the hot path that is what counts.
    """

    __slots__ = ("_count", "_former", "_latest", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._latest: dict[TenantId, dict[bytes, int]] = {}
        self._former: dict[TenantId, dict[bytes, int]] = {}

    def note(self, tenant_id: TenantId, rows: Sequence[Row]) -> int:
        """Remembers a batch; how many of its events were known, within it or before, with another time."""
        times = {row[1]: row[0] for row in rows}
        if len(times) < len(rows):
            return sum(self.note(tenant_id, (row,)) for row in rows)
        latest = self._latest.setdefault(tenant_id, {})
        again = latest.keys() & times.keys()
        retimed = sum(latest[key] != times[key] for key in again)
        former = self._former.get(tenant_id)
        if former:
            retimed += sum(former[key] != times[key] for key in (former.keys() & times.keys()) - again)
        before = len(latest)
        latest |= times
        self._count += len(latest) - before
        if self._count >= self._most:
            self._former, self._latest, self._count = self._latest, {}, 0
        return retimed
