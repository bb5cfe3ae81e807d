"""The table `observed_fields`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tlsy.rules_engine.adapters.postgres.times import to_us
from tlsy.rules_engine.ports import ObservedField

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tlsy.tenancy.unit_of_work import UnitOfWork


class PostgresObservedFields:
    """See `tlsy.rules_engine.ports.ObservedFields`."""

    def __init__(self, statements: Mapping[str, str]) -> None:
        self._load = statements["load_fields"]
        self._save = statements["save_fields"]
        self._delete = statements["delete_fields"]

    async def load(self, tx: UnitOfWork, event_type: str = "") -> Sequence[ObservedField]:
        """See the port."""
        return [
            ObservedField(row["event_type"], row["path"], frozenset(row["types"]), to_us(row["last_seen_at"]))
            for row in await tx.fetch(self._load, tx.tenant_id, event_type)
        ]

    async def save(
        self, tx: UnitOfWork, fields: Sequence[ObservedField], gone: Sequence[tuple[str, str]]
    ) -> None:
        """See the port."""
        if gone:
            await tx.execute(self._delete, tx.tenant_id, *map(list, zip(*gone, strict=True)))
        written = [
            {
                "event_type": field.event_type,
                "path": field.path,
                "types": sorted(field.types),
                "last_seen_us": field.last_seen_us,
            }
            for field in sorted(fields, key=lambda field: (field.event_type, field.path))
        ]
        await tx.execute(self._save, tx.tenant_id, msgspec.json.encode(written).decode())
