from __future__ import annotations

from typing import TYPE_CHECKING

from kio.schema.errors import ErrorCode
from kio.schema.init_producer_id.v1 import InitProducerIdRequest, InitProducerIdResponse
from kio.schema.types import ProducerId
from kio.static.primitive import i16

from tlsy.broker.api import NO_THROTTLE, Caller

if TYPE_CHECKING:
    from collections.abc import Iterator


async def init_producer_id(
    producer_ids: Iterator[int], request: InitProducerIdRequest, _caller: Caller
) -> InitProducerIdResponse:
    """Give an idempotent producer an id of its own; a transactional one is refused."""
    if request.transactional_id is not None:
        return InitProducerIdResponse(
            throttle_time=NO_THROTTLE,
            error_code=ErrorCode.transactional_id_authorization_failed,
            producer_epoch=i16(-1),
        )
    return InitProducerIdResponse(
        throttle_time=NO_THROTTLE,
        error_code=ErrorCode.none,
        producer_id=ProducerId(next(producer_ids)),
        producer_epoch=i16(0),
    )
