"""Events of a record as the engine takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlsy.rules_engine.domain.events import Event

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb

#: By the number in the proto; unspecified counts as info.
_SEVERITIES: Final = ("info", "debug", "info", "warning", "error", "critical")


def engine_events(events: Iterable[pb.Event], matched: Container[str]) -> Iterator[Event]:
    """The events in order. Those of types that no rule matches only move their source's clock.

    They come without the rest, because reading it is most of what an event costs here.
    """
    for event in events:
        kind = event.type
        if kind not in matched:
            yield Event(source=event.source, id="", time_us=event.time_us, type=kind)
            continue
        number = event.severity
        yield Event(
            source=event.source,
            id=event.id,
            time_us=event.time_us,
            type=kind,
            subject=event.subject,
            site=event.site,
            severity=_SEVERITIES[number] if 0 <= number < len(_SEVERITIES) else "info",
            value=event.value if event.HasField("value") else None,
            # Not copied: a copy costs more than judging does, and the engine does not keep the event.
            labels=event.labels,
            data=event.data or None,
        )
