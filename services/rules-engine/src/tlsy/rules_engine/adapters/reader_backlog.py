"""How far the group's member is behind the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.eventlog.ports import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsy.eventlog.ports import GroupReader


class ReaderBacklog:
    """See `tlsy.rules_engine.ports.Backlog`. Records that are fetched and not yet applied are not seen."""

    def __init__(self, topic: str, make: Callable[[], GroupReader]) -> None:
        self._topic = topic
        self._make = make
        self._reader: GroupReader | None = None

    def reader(self) -> GroupReader:
        """A new member of the group, and the one that is asked from now on."""
        self._reader = self._make()
        return self._reader

    async def waits(self, partition: int) -> bool:
        """See the port; while it is not known, records wait."""
        if self._reader is None:
            return True
        lags = await self._reader.lag()
        return lags.get(TopicPartition(topic=self._topic, partition=partition), 1) > 0
