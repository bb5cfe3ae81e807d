"""What one partition knows of its idempotent producers."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

from kio.schema.errors import ErrorCode

from tlsy.broker.batch import Batch, InvalidBatchError

_REMEMBERED_BATCHES: Final = 5
_SEQUENCES: Final = 2**31


@dataclass(frozen=True, slots=True)
class _Appended:
    first_sequence: int
    last_sequence: int
    base_offset: int


@dataclass(slots=True)
class _Producer:
    epoch: int
    recent: deque[_Appended]


class Producers:
    """Detects duplicates and gaps by (producer id, epoch, sequence), as Apache Kafka does.

    Remembers the last five batches of each producer: a client has at most five requests in flight, so a
    resend is always among them. A producer that is not known may begin at any sequence. Not more than
    `limit` producers are kept; the one silent for longest is forgotten first.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: OrderedDict[int, _Producer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def duplicate_of(self, batch: Batch) -> int | None:
        """Base offset of the earlier append that `batch` repeats, None if it is the next in sequence.

        Raises:
            InvalidBatchError: INVALID_PRODUCER_EPOCH for a fenced producer,
                OUT_OF_ORDER_SEQUENCE_NUMBER for a gap or an older batch.
        """
        producer = self._known.get(batch.producer_id)
        if producer is None:
            return None
        if batch.producer_epoch < producer.epoch:
            raise InvalidBatchError(ErrorCode.invalid_producer_epoch)
        if batch.producer_epoch > producer.epoch:
            if batch.base_sequence != 0:
                raise InvalidBatchError(ErrorCode.out_of_order_sequence_number)
            return None
        last_sequence = _last_sequence(batch)
        for appended in producer.recent:
            if appended.first_sequence == batch.base_sequence and appended.last_sequence == last_sequence:
                return appended.base_offset
        if batch.base_sequence != (producer.recent[-1].last_sequence + 1) % _SEQUENCES:
            raise InvalidBatchError(ErrorCode.out_of_order_sequence_number)
        return None

    def record(self, batch: Batch, base_offset: int) -> None:
        """Remember that `batch` was appended at `base_offset`."""
        producer = self._known.get(batch.producer_id)
        if producer is None or producer.epoch != batch.producer_epoch:
            producer = _Producer(batch.producer_epoch, deque(maxlen=_REMEMBERED_BATCHES))
            self._known[batch.producer_id] = producer
        producer.recent.append(_Appended(batch.base_sequence, _last_sequence(batch), base_offset))
        self._known.move_to_end(batch.producer_id)
        if len(self._known) > self._limit:
            self._known.popitem(last=False)


def _last_sequence(batch: Batch) -> int:
    return (batch.base_sequence + batch.record_count - 1) % _SEQUENCES
