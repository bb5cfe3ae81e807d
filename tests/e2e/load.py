"""Numbered events, the rules that count them, and a sender that does not give up.

Of ten numbers of a source eight are counted by window rules; one opens an incident of its own and one, five
numbers later, ends it. Times grow with the numbers and are fixed before the first is sent, so whatever is
sent again is the same event.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import grpc

from tlsy.contracts.ingestion.v1 import ingestion_pb2 as ingestion
from tlsy.rpc.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from examples.demo.sessions import Session

COUNTED: Final = "parcel.passed"
MARK: Final = "door.open"
STEP_US: Final = 1000
BATCH: Final = 10
_TIMEOUT_S: Final = 5.0
_PAUSE_S: Final = 0.05
_PASSING: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
_TAKEN: Final = frozenset({ingestion.OUTCOME_ACCEPTED, ingestion.OUTCOME_DUPLICATE})


def counted(numbers: int) -> int:
    """How many of the first so many events of a source are counted; `numbers` is a multiple of ten."""
    return numbers * 8 // 10


def marks(numbers: int) -> int:
    """How many incidents of their own the same events open, and end."""
    return numbers // 10


def numbered(source: str, number: int, began_us: int) -> ingestion.Event:
    """The event of a number."""
    given: dict[str, Any] = {"source": source, "id": str(number), "time_us": began_us + number * STEP_US}
    opens = number - number % 5
    if number % 10 == 0:
        return ingestion.Event(**given, type=MARK, subject=f"{opens}", value=1.0)
    if number % 10 == 5:
        return ingestion.Event(**given, type=MARK, subject=f"{opens - 5}", value=0.0)
    return ingestion.Event(**given, type=COUNTED, value=1.0)


def rule_documents(expected: int) -> Mapping[str, bytes]:
    """Rule name to document: a mark's own incident, `expected` events counted, and one more than that."""

    def document(name: str, match: str, **members: Any) -> bytes:
        rule = {
            "schema": "tlsy.rule/1",
            "name": name,
            "match": {"type": match, "unseen": True},
            "lateness_s": 300,
            "incident": {"severity": "warning", "summary": name},
        }
        return json.dumps(rule | members).encode()

    def count(op: str) -> dict[str, Any]:
        return {"fn": "count", "over_s": 7 * 86_400, "op": op, "threshold": expected}

    return {
        "marked": document("marked", MARK, when={"gt": [{"field": "value"}, 0.5]}),
        "all": document("all", COUNTED, window=count("ge"), group_by=[]),
        "more": document("more", COUNTED, window=count("gt"), group_by=[]),
    }


class Sender:
    """Sends one source's events in order, each batch again until it is acknowledged.

    Attributes:
        acknowledged: numbers for which the server has answered.
        refused: reasons of the calls that were not answered with outcomes.
    """

    def __init__(self, tenant: str, source: str, began_us: int, agent: Callable[[], Session]) -> None:
        self.acknowledged: set[int] = set()
        self.refused: list[str] = []
        self._parent = f"tenants/{tenant}"
        self._source = source
        self._began_us = began_us
        self._agent = agent

    def events(self, numbers: Sequence[int]) -> list[ingestion.Event]:
        """The events of these numbers."""
        return [numbered(self._source, number, self._began_us) for number in numbers]

    async def send(self, numbers: range, *, pause_s: float = 0.0, gone: asyncio.Event | None = None) -> None:
        """All of them, in batches; with a pause between two.

        The last two wait until something is `gone`: who was done before that would notice nothing of it.
        """
        batches = range(numbers.start, numbers.stop, BATCH)
        for first in batches:
            if gone is not None and first in batches[-2:]:
                await gone.wait()
            await self.deliver(range(first, min(first + BATCH, numbers.stop)))
            await asyncio.sleep(pause_s)

    async def deliver(self, numbers: range) -> None:
        """One batch; returns once every event of it is taken."""
        request = ingestion.IngestEventsRequest(parent=self._parent, events=self.events(numbers))
        while not await self._taken(request):
            await asyncio.sleep(_PAUSE_S)
        self.acknowledged.update(numbers)

    async def _taken(self, request: ingestion.IngestEventsRequest) -> bool:
        try:
            answer = await self._agent().ingestion.IngestEvents(request, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _PASSING:
                raise
            self.refused.append(ServiceError.from_rpc_error(error).reason)
            return False
        assert not answer.rejections, answer
        return _TAKEN.issuperset(answer.outcomes)
